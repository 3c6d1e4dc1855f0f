"""optimum-neuron 0.4.5: `optimum-cli export neuron` compiles, `optimum-cli neuron serve` (vLLM 0.11) serves.

Source: huggingface/optimum-neuron v0.4.5, checked against its own cache job's command line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainyard.neuron.engines.base import Build, Command, Versions

_COMPILE_ACTIVITY = re.compile(
    r"(Compiling the model|Compiler status|neuronx-cc compile|Exporting the model)", re.I
)


class Optimum:
    name = "optimum"
    versions = Versions(engine="0.4.5", compiler="2.21.33363.0", sdk="2.26.1", vllm="0.11.0")
    families = frozenset({"trn1", "trn1n", "trn2", "inf2"})
    model_types = frozenset(
        {"granite", "llama", "llama4_text", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3"}
    )
    dtypes = frozenset({"bfloat16", "float16", "float32"})
    # An export from a local directory writes checkpoint/weights/tp{rank}_sharded_checkpoint.safetensors. One
    # from a
    # Hub id does not, but then every server downloads the checkpoint again: we mirror to S3, so weights are
    # baked.
    bakes_weights = True
    expects: tuple[str, ...] = (
        "neuron_config.json",
        "config.json",
        "model.pt",
        "checkpoint/weights/tp*_sharded_checkpoint.safetensors",
    )

    def image(self, region: str) -> str:
        return (
            f"763104351884.dkr.ecr.{region}.amazonaws.com/huggingface-vllm-inference-neuronx:"
            "0.11.0-optimum0.4.5-neuronx-py310-sdk2.26.1-ubuntu22.04"
        )

    def lnc(self, family: str) -> int:
        return 2 if family == "trn2" else 1

    def tensor_parallels(self, cores: int) -> tuple[int, ...]:
        return tuple(tp for tp in (1, 2, 4, 8, 16, 32, 64) if tp <= cores)

    def compile_command(self, build: Build) -> Command:
        # The CLI turns inf2 and trn1n into trn1 by itself; it takes the family, not the size.
        argv = (
            "optimum-cli", "export", "neuron",
            "-m", build.model_dir,
            "--instance_type", build.instance_family,
            "--batch_size", str(build.batch_size),
            "--sequence_length", str(build.sequence_length),
            "--tensor_parallel_size", str(build.tensor_parallel),
            "--task", "text-generation",
            build.output_dir,
        )  # fmt: skip
        return Command(argv, {"HF_HUB_OFFLINE": "1"})

    def serve_command(self, model_dir: str, name: str, port: int, build: Build) -> Command:
        # Batch, sequence and TP come from neuron_config.json: said again here they could only disagree.
        argv = (
            "optimum-cli", "neuron", "serve",
            "-m", model_dir,
            "--served-model-name", name,  # one name only: optimum's parser takes no list
            "--port", str(port),
        )  # fmt: skip
        return Command(argv, {"HF_HUB_OFFLINE": "1"})

    def problems_of_bundle(self, config: Mapping[str, Any], build: Build) -> list[str]:
        target = "trn2" if build.instance_family == "trn2" else "trn1"
        wanted = {
            "optimum_neuron_version": self.versions.engine,
            "tp_degree": build.tensor_parallel,
            "batch_size": build.batch_size,
            "sequence_length": build.sequence_length,
            "target": target,
        }
        found = {key: config.get(key) for key in (*wanted, "neuronxcc_version")}
        wanted["neuronxcc_version"] = self.versions.compiler
        # The compiler adds its build (2.21.33363.0+82129205), which its release already fixes.
        found_version = str(found["neuronxcc_version"]).partition("+")[0]
        return [
            f"neuron_config.json says {key} = {found[key]!r}, planned was {value!r}"
            for key, value in wanted.items()
            if (found_version if key == "neuronxcc_version" else found[key]) != value
        ]

    def recompiled(self, log: str) -> str | None:
        for line in log.splitlines():
            if _COMPILE_ACTIVITY.search(line):
                return line.strip()
        return None
