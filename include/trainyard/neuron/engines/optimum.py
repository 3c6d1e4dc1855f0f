"""optimum-neuron 0.4.5: `optimum-cli export neuron` compiles, `optimum-cli neuron serve` (vLLM 0.11) serves.

Source: huggingface/optimum-neuron v0.4.5. Llama 4 is served as text: images need another engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from trainyard.neuron.engines import exported
from trainyard.neuron.engines.base import (
    Build,
    Cache,
    Command,
    Evidence,
    Holds,
    Host,
    Layout,
    Serving,
    Versions,
    powers_of_two,
)

_COMPILE_ACTIVITY = re.compile(
    r"(Compiling the model|Compiler status|neuronx-cc compile|Exporting the model|exported on the fly)", re.I
)


class Optimum:
    name = "optimum"
    versions = Versions(engine="0.4.5", compiler="2.21.33363.0", sdk="2.26.1", vllm="0.11.0")
    families = frozenset({"trn1", "trn1n", "trn2", "trn2u", "inf2"})
    model_types = exported.MODEL_TYPES
    images_too: frozenset[str] = frozenset()
    dtypes = exported.DTYPES
    loads_quantized: Mapping[str, frozenset[str]] = {}
    quantizes: Mapping[str, frozenset[str]] = {}
    # An export from a local directory writes the weights, and a server that finds none there goes to the Hub.
    holds: tuple[Holds, ...] = ("weights",)
    cache: Cache = "neuronx"
    pads_heads = True
    min_batch = 2  # a batch of 1 switches continuous batching off, the only mode that vLLM serves
    running_metrics: tuple[str, ...] = ("vllm:num_requests_running", "vllm:num_requests_waiting")

    def image(self, region: str) -> str:
        return (
            f"763104351884.dkr.ecr.{region}.amazonaws.com/huggingface-vllm-inference-neuronx:"
            "0.11.0-optimum0.4.5-neuronx-py310-sdk2.26.1-ubuntu22.04"
        )

    def lncs(self, target: str) -> tuple[int, ...]:
        return (2,) if target == "trn2" else (1,)

    def tensor_parallels(self, cores: int) -> tuple[int, ...]:
        return powers_of_two(min(cores, 64))

    def host(self, weight_bytes: int, build: Build) -> Host:
        return exported.host(weight_bytes)

    def compile_command(self, build: Build) -> Command:
        return exported.export_command(build)

    def lookup_command(self, repo: str, cache_repo: str, build: Build) -> Command | None:
        return exported.lookup_command(repo, cache_repo, build)

    def expects(self, build: Build) -> Mapping[str, int]:
        return exported.expects(build)

    def problems_of_bundle(
        self, files: Mapping[str, int], read: Callable[[str], bytes], build: Build
    ) -> list[str]:
        return exported.problems(files, read, build, self.versions)

    def layout(self, holds: Holds) -> Layout:
        return Layout(bundle="", model_files="none")

    def serve_command(self, serving: Serving) -> Command:
        # Batch, sequence and TP come from neuron_config.json: said again here they could only disagree.
        argv = (
            "optimum-cli", "neuron", "serve",
            "-m", serving.directory,
            "--served-model-name", serving.name,  # one name only: optimum's parser takes no list
            "--port", str(serving.port),
        )  # fmt: skip
        return Command(argv, {"HF_HUB_OFFLINE": "1"})

    def doubts(self, evidence: Evidence, build: Build) -> list[str]:
        # Without the flag that allows it, a set that does not fit ends the server; with it, the log tells.
        return [
            f"its log says {line.strip()!r}"
            for line in evidence.log.splitlines()
            if _COMPILE_ACTIVITY.search(line)
        ][:1]


ENGINE = Optimum()
