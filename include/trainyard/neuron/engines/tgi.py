"""Text Generation Inference for Neuron: maintenance mode, trn1 and inf2 only; sets of optimum-neuron 0.3.0.

Source: huggingface/text-generation-inference 3.3.6 (Dockerfile.neuron, backends/neuron, launcher, router) and
huggingface/optimum-neuron v0.3.0, which its image holds and compiles with.
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
    platform_of,
    powers_of_two,
)

_CAST = {"bfloat16": "bf16", "float16": "fp16"}


class Tgi:
    name = "tgi"
    versions = Versions(engine="0.3.0", compiler="2.19.8089.0", sdk="2.24.0", vllm="")
    families = frozenset({"trn1", "trn1n", "inf2"})
    model_types = frozenset({"granite", "llama", "mixtral", "phi3", "qwen2", "qwen3"})
    images_too: frozenset[str] = frozenset()
    dtypes = frozenset(_CAST)
    loads_quantized: Mapping[str, frozenset[str]] = {}
    quantizes: Mapping[str, frozenset[str]] = {}
    holds: tuple[Holds, ...] = ("weights",)
    cache: Cache = "neuronx"
    pads_heads = True
    min_batch = 2
    running_metrics: tuple[str, ...] = ("tgi_batch_current_size", "tgi_queue_size")

    def image(self, region: str) -> str:
        return "ghcr.io/huggingface/text-generation-inference:3.3.6-neuron"

    def lncs(self, target: str) -> tuple[int, ...]:
        return (1,)

    def tensor_parallels(self, cores: int) -> tuple[int, ...]:
        # The whole of an inf2.24xlarge or inf2.48xlarge is 12 or 24 cores.
        return tuple(sorted({*powers_of_two(cores), *(n for n in (12, 24) if n == cores)}))

    def host(self, weight_bytes: int, build: Build) -> Host:
        return exported.host(weight_bytes)

    def compile_command(self, build: Build) -> Command:
        # Version 0.3.0 takes no instance type, and drops --tensor_parallel_size: the degree is num_cores.
        argv = (
            "optimum-cli", "export", "neuron",
            "-m", build.model_dir,
            "--task", "text-generation",
            "--batch_size", str(build.batch_size),
            "--sequence_length", str(build.sequence_length),
            "--num_cores", str(build.tensor_parallel),
            "--auto_cast_type", _CAST[build.dtype],
            build.output_dir,
        )  # fmt: skip
        env = {
            "HF_HUB_OFFLINE": "1",
            "NEURON_COMPILE_CACHE_URL": build.cache_dir,
            "NEURON_PLATFORM_TARGET_OVERRIDE": platform_of(build),
        }
        return Command(argv, env)

    def lookup_command(self, repo: str, cache_repo: str, build: Build) -> Command | None:
        # 0.3.0 lists all configurations of a model and selects none, so its answer proves nothing.
        return None

    def expects(self, build: Build) -> Mapping[str, int]:
        return exported.expects(build)

    def problems_of_bundle(
        self, files: Mapping[str, int], read: Callable[[str], bytes], build: Build
    ) -> list[str]:
        return exported.problems(read, build, self.versions, None)

    def layout(self, holds: Holds) -> Layout:
        return Layout(bundle="", model_files="none")

    def serve_command(self, serving: Serving) -> Command:
        build = serving.build
        most = build.sequence_length - 1
        argv = (
            "text-generation-launcher",
            "--model-id", serving.directory,
            "--hostname", "0.0.0.0",
            "--port", str(serving.port),
            "--max-batch-size", str(build.batch_size),
            "--max-input-tokens", str(most),
            "--max-total-tokens", str(build.sequence_length),
            # The warm-up fills this many tokens with the longest inputs, which must be a batch at most.
            "--max-batch-prefill-tokens", str(build.batch_size * most),
        )  # fmt: skip
        env = {
            "HF_HUB_OFFLINE": "1",
            "HF_NUM_CORES": str(build.tensor_parallel),
            "HF_AUTO_CAST_TYPE": _CAST[build.dtype],
        }
        return Command(argv, env)

    def doubts(self, evidence: Evidence, build: Build) -> list[str]:
        return exported.doubts(evidence.log)


ENGINE = Tgi()
