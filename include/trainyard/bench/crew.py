"""Machines that carry one load test together: what each does, and what it has to hear from the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainyard.bench.progress import Progress
from trainyard.bench.workload import Workload
from trainyard.errors import Problem, Refused

TOGETHER_SECONDS = 0.3  # until all processes of a machine have read when to begin


@dataclass(frozen=True)
class Share:
    """Of a load test that several machines carry: the number of this one, from 0, and how many there are."""

    index: int = 0
    of: int = 1

    def shards(self, workload: Workload) -> tuple[range, int]:
        """Our processes, and how many all machines run. Raises Refused where nothing is left for us."""
        total = workload.processes * self.of
        if workload.arrivals is None:
            total = min(total, workload.concurrency)
        own = range(self.index, total, self.of)
        if not own:
            rule = f"has no user for machine {self.index} of {self.of}"
            raise Refused(Problem("workload.concurrency", total, rule, "Use fewer machines, or more users"))
        return own, total


@dataclass(frozen=True)
class Known:
    """seen: by all machines. halted: one of them was told to end the test."""

    seen: Progress
    halted: bool = False


class Crew(Protocol):
    """Those who carry a load test together. Every call may raise TransientError: somebody is missing."""

    def ready(self, folder: Path) -> None:
        """Our generators stand by. folder: for the rows of the other machines."""

    @property
    def files(self) -> Sequence[Path]:
        """Rows of the other machines, as they come, on our clock; only for the one that leads."""

    def go(self) -> float | None:
        """Unix seconds when all begin, once it is agreed upon. Asked again and again."""

    def beat(self, lines: Sequence[bytes], known: Known, began: float) -> Known:
        """Takes the rows since the last beat and what we know; returns what all of us know. began: on our
        monotonic clock."""


class Alone:
    """One machine."""

    files: Sequence[Path] = ()

    def ready(self, folder: Path) -> None:
        pass

    def go(self) -> float | None:
        return time.time() + TOGETHER_SECONDS

    def beat(self, lines: Sequence[bytes], known: Known, began: float) -> Known:
        return known


class Watch(Protocol):
    """Whoever may end a test early."""

    def follow(self, files: Sequence[Path], halt: Path, began: float) -> None:
        """Begin to read the rows that are added to `files`. To end the test, make the file `halt`. began: of
        the test, on the monotonic clock; with several machines some seconds ahead."""

    def end(self) -> None:
        """Nothing more will come."""
