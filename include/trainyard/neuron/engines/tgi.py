"""Text Generation Inference for Neuron: maintenance mode, trn1 and inf2 only; sets of optimum-neuron.

Source: huggingface/text-generation-inference, backends/neuron. Its image holds optimum-neuron, which compiles.
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


class Tgi:
    name = "tgi"
    versions = Versions(engine="0.4.5", compiler="2.21.33363.0", sdk="2.26.1", vllm="")
    families = frozenset({"trn1", "trn1n", "inf2"})
    model_types = exported.MODEL_TYPES
    images_too: frozenset[str] = frozenset()
    dtypes = exported.DTYPES
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
        build = serving.build
        argv = (
            "text-generation-launcher",
            "--model-id", serving.directory,
            "--hostname", "0.0.0.0",
            "--port", str(serving.port),
            "--max-batch-size", str(build.batch_size),
            "--max-input-tokens", str(build.sequence_length - 1),
            "--max-total-tokens", str(build.sequence_length),
        )  # fmt: skip
        return Command(argv, {"HF_HUB_OFFLINE": "1"})

    def doubts(self, evidence: Evidence, build: Build) -> list[str]:
        return [
            f"its log says {line.strip()!r}"
            for line in evidence.log.splitlines()
            if _COMPILE_ACTIVITY.search(line)
        ][:1]


ENGINE = Tgi()
