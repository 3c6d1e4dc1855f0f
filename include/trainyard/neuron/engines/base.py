"""What an engine has to say about itself. Everything is data, or a pure function of the request.

docs/engines.md says how a new one is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

# weights: the compiled set holds them, sharded for one TP degree. graph: it does not, and any weights fit it.
Holds = Literal["graph", "weights"]
# What a server needs of the model's own files beside the bundle: nothing, all but the weights, or all.
ModelFiles = Literal["none", "without_weights", "all"]
# Which persistent cache the compiler keeps: libneuronxla's (MODULE_* entries), the native plugin's, or none.
Cache = Literal["neuronx", "vllm", "none"]


@dataclass(frozen=True)
class Build:
    """What is compiled: shapes and places. Paths are those inside the pod."""

    tensor_parallel: int  # logical cores
    lnc: int  # physical cores that make one logical core
    batch_size: int
    sequence_length: int  # tokens, prompt and answer together
    instance_family: str  # trn1, trn1n, trn2, trn2u, inf2
    target: str  # what neuronx-cc compiles for: trn1 (also inf2), trn2
    model_type: str  # config.json's, of the text part
    dtype: str
    holds: Holds
    quantization: str | None  # the format that the weights are quantized to while compiling
    model_dir: str
    output_dir: str
    cache_dir: str


@dataclass(frozen=True)
class Command:
    """A command line with its environment. argv is never given to a shell.

    until: words of a line of its output after which it has done its work and is told to end, for a command
    that does not end by itself.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    until: str = ""


@dataclass(frozen=True)
class Versions:
    """vllm is "" for an engine that serves without vLLM."""

    engine: str
    compiler: str
    sdk: str
    vllm: str


@dataclass(frozen=True)
class Layout:
    """Where a server finds things. bundle: appended to the release's directory ("" is the directory itself).

    model_files go into the directory itself: its last part is the release's id, which /v1/models then names.
    """

    bundle: str
    model_files: ModelFiles


@dataclass(frozen=True)
class Serving:
    """What is served: the directory that `Layout` describes, under a name, on a port."""

    directory: str
    name: str
    port: int
    build: Build
    grace_seconds: int  # for streams in flight when the server is told to stop


@dataclass(frozen=True)
class Evidence:
    """What a server that has started left behind.

    log: its output so far. metrics: its /metrics page. files: paths below the bundle's folder as they are
    now, without our own hidden ones; published: the paths of the bundle's manifest.
    """

    log: str
    metrics: str
    files: frozenset[str]
    published: frozenset[str]


@dataclass(frozen=True)
class Host:
    """Bytes of host memory that compiling and serving need besides what a small model needs."""

    compiling: int
    serving: int


class Engine(Protocol):
    name: str
    versions: Versions
    families: frozenset[str]  # Karpenter's instance families
    model_types: frozenset[str]  # config.json's model_type, of the text part
    images_too: frozenset[str]  # of these, the model types that it serves with image input
    dtypes: frozenset[str]
    # Formats of quantized checkpoints that it loads, and formats that it makes itself of BF16 or FP16
    # weights; each with the compile targets (trn1, trn2) that can run it.
    loads_quantized: Mapping[str, frozenset[str]]
    quantizes: Mapping[str, frozenset[str]]
    holds: tuple[Holds, ...]  # what its compiled set can hold; the first is the default
    cache: Cache
    pads_heads: bool  # query heads that TP does not divide are padded to a multiple of it
    min_batch: int  # smaller ones are not served by continuous batching
    running_metrics: tuple[str, ...]  # gauges of /metrics whose sum is 0 when nothing is in flight

    def image(self, region: str) -> str:
        """Pinned, with the region filled in."""
        ...

    def lncs(self, target: str) -> tuple[int, ...]:
        """Physical cores a logical core that it supports; the first is the default."""
        ...

    def tensor_parallels(self, cores: int) -> tuple[int, ...]:
        """Degrees that it takes on a node of so many logical cores."""
        ...

    def host(self, weight_bytes: int, build: Build) -> Host: ...

    def compile_command(self, build: Build) -> Command: ...

    def lookup_command(self, repo: str, cache_repo: str, build: Build) -> Command | None:
        """Asks the Hub's cache of compiled models for this configuration; None: it has no such cache."""
        ...

    def expects(self, build: Build) -> Mapping[str, int]:
        """Globs below output_dir that a finished compile has left, and how many files at least match each."""
        ...

    def problems_of_bundle(
        self, files: Mapping[str, int], read: Callable[[str], bytes], build: Build
    ) -> list[str]:
        """Reads a finished set's own description; says why this engine would refuse to load it.

        files: bytes by path; everything of `expects` is among them.
        """
        ...

    def layout(self, holds: Holds) -> Layout: ...

    def serve_command(self, serving: Serving) -> Command: ...

    def doubts(self, evidence: Evidence, build: Build) -> list[str]:
        """Why it is not proven that the server used the bundle and compiled nothing; [] if it is."""
        ...


def platform_of(build: Build) -> str:
    """What the toolchain calls the chips, for a host that has none to ask: inf2, trn1 or trn2."""
    return build.instance_family.rstrip("nu")


def powers_of_two(most: int, least: int = 1) -> tuple[int, ...]:
    """1, 2, 4 … up to `most`."""
    found = []
    value = 1
    while value <= most:
        if value >= least:
            found.append(value)
        value *= 2
    return tuple(found)
