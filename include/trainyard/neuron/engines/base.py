"""What an engine has to say about itself. Everything is a pure function of the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Build:
    """What is compiled: shapes and places. Paths are those inside the pod."""

    tensor_parallel: int
    lnc: int
    batch_size: int
    sequence_length: int
    instance_family: str
    dtype: str
    model_dir: str
    output_dir: str


@dataclass(frozen=True)
class Command:
    """A command line with its environment. argv is never given to a shell."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Versions:
    engine: str
    compiler: str
    sdk: str
    vllm: str


class Engine(Protocol):
    name: str
    versions: Versions
    families: frozenset[str]
    model_types: frozenset[str]
    dtypes: frozenset[str]
    bakes_weights: bool  # its compiled set holds the weights, sharded for one TP degree
    expects: tuple[str, ...]  # files that a finished compile has left, relative to output_dir

    def image(self, region: str) -> str: ...

    def lnc(self, family: str) -> int: ...

    def tensor_parallels(self, cores: int) -> tuple[int, ...]: ...

    def compile_command(self, build: Build) -> Command: ...

    def serve_command(self, model_dir: str, name: str, port: int, build: Build) -> Command: ...

    def problems_of_bundle(self, config: Mapping[str, Any], build: Build) -> list[str]:
        """Reads a finished set's own description; says why this engine would refuse to load it."""
        ...

    def recompiled(self, log: str) -> str | None:
        """A log line of a server that shows that it compiled although a bundle was there; None if it did
        not."""
        ...
