"""optimum-neuron 0.4.5: `optimum-cli export neuron` compiles, `optimum-cli neuron serve` (vLLM 0.11) serves.

Source: huggingface/optimum-neuron v0.4.5. Llama 4 is served as text: images need another engine.
"""

from __future__ import annotations

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


class Optimum:
    name = "optimum"
    versions = Versions(engine="0.4.5", compiler="2.21.33363.0", sdk="2.26.1", vllm="0.11.0")
    families = frozenset({"trn1", "trn1n", "trn2", "trn2u", "inf2"})
    model_types = frozenset(
        {"granite", "llama", "llama4_text", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3"}
    )
    images_too: frozenset[str] = frozenset()
    dtypes = frozenset({"bfloat16", "float16", "float32"})
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
        # The CLI takes the family, not the size, and turns inf2 and trn1n into trn1 by itself. It knows no
        # trn2u, whose chips are those of trn2.
        argv = (
            "optimum-cli", "export", "neuron",
            "-m", build.model_dir,
            "--instance_type", build.instance_family.removesuffix("u"),
            "--batch_size", str(build.batch_size),
            "--sequence_length", str(build.sequence_length),
            "--tensor_parallel_size", str(build.tensor_parallel),
            "--task", "text-generation",
            build.output_dir,
        )  # fmt: skip
        return Command(argv, {"HF_HUB_OFFLINE": "1", "NEURON_COMPILE_CACHE_URL": build.cache_dir})

    def lookup_command(self, repo: str, cache_repo: str, build: Build) -> Command | None:
        argv = (
            "optimum-cli", "neuron", "cache", "lookup", repo,
            "--task", "text-generation",
            "--instance_type", build.instance_family.removesuffix("u"),
            *(("--dtype", build.dtype) if build.dtype in ("bfloat16", "float16") else ()),
            "--tensor_parallel_size", str(build.tensor_parallel),
            "--batch_size", str(build.batch_size),
            "--sequence_length", str(build.sequence_length),
            "--repo_id", cache_repo,
        )  # fmt: skip
        return Command(argv, {})

    def expects(self, build: Build) -> Mapping[str, int]:
        return exported.expects(build)

    def problems_of_bundle(
        self, files: Mapping[str, int], read: Callable[[str], bytes], build: Build
    ) -> list[str]:
        return exported.problems(read, build, self.versions, build.target)

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
        return exported.doubts(evidence.log)


ENGINE = Optimum()
