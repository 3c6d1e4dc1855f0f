"""What a benchmark is, and what it found. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.statistics import Pair, Spread, ratios, spread


@dataclass(frozen=True)
class Bar:
    """What must hold of a value: at most, or at least, so much."""

    compare: Literal["<=", ">="]
    limit: float

    def met(self, value: float) -> bool:
        return value <= self.limit if self.compare == "<=" else value >= self.limit

    def __str__(self) -> str:
        return f"{self.compare} {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """One number that a benchmark reports. No bar: for information, as are both sides of a ratio."""

    name: str
    unit: str
    spread: Spread
    bar: Bar | None = None

    @property
    def met(self) -> bool | None:
        return None if self.bar is None else self.bar.met(self.spread.median)


@dataclass(frozen=True)
class Options:
    """What the command line says to every benchmark.

    scratch: an empty folder, thrown away afterwards. pairs: how many to measure; None: as many as the
    benchmark finds right. home: of a stack that runs already, for benchmarks that need one. say: progress.
    versions: of peers outside of this environment, by name; a benchmark writes them for the result.
    """

    repository: Path
    scratch: Path
    pairs: int | None = None
    home: Path | None = None
    say: Callable[[str], None] = lambda text: None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """name: also of the result's file, and of its row in docs/benchmarks.md. claim: one sentence.

    peer: what we are measured beside. seconds: estimated; one of a minute or more is run by `make bench-full`
    only. measure: figures, the first of which is what the claim is about. Raises NotMeasured.
    """

    name: str
    claim: str
    peer: str
    seconds: float
    measure: Callable[[Options], Sequence[Figure]] = field(repr=False)


class NotMeasured(Exception):
    """A benchmark could not be run; says what is missing and what to do."""


def compared(name: str, unit: str, peer: str, pairs: Sequence[Pair], bar: Bar | None) -> tuple[Figure, ...]:
    """The ratio, held to `bar`, and both of its sides in `unit`."""
    return (
        Figure(f"{name}: ratio", "ratio", ratios(pairs), bar),
        Figure(name, unit, spread([pair.ours for pair in pairs])),
        Figure(f"{name}: {peer}", unit, spread([pair.peer for pair in pairs])),
    )
