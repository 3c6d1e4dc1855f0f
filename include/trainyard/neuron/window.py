"""Readings gathered over a while, and the judgement so far. Pure: somebody else reads and waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainyard.neuron.health import Expected, Health, judge
from trainyard.neuron.readings import Reading

# What came long before the window says nothing about now, and a wait may be long.
_KEPT_WINDOWS = 2
_KEPT_SECONDS = 120.0


@dataclass
class Window:
    """seconds: how long devices have to be watched before they are called healthy; 0: two readings do."""

    expected: Expected
    seconds: float = 0.0
    _seen: list[Reading] = field(default_factory=list)

    def add(self, readings: Iterable[Reading]) -> None:
        self._seen = sorted([*self._seen, *readings], key=lambda each: each.at)
        if self._seen:
            begin = self._seen[-1].at - _KEPT_WINDOWS * self.seconds - _KEPT_SECONDS
            self._seen = [each for each in self._seen if each.at >= begin]

    def health(self, conditions: Sequence[Mapping[str, Any]] = ()) -> Health:
        found = judge(self._seen, self.expected, conditions)
        watched = self._seen[-1].at - self._seen[0].at if self._seen else 0.0
        if found.state == "healthy" and watched < self.seconds:
            words = f"well so far, watched for {watched:.0f} of {self.seconds:.0f} s"
            return Health("unknown", (words,), found.facts)
        return found
