"""A histogram that can be merged: percentiles of more values than memory holds, or of other machines'.

Buckets grow by a constant factor, so every percentile is within `ACCURACY` of the exact one (nearest rank),
whatever the values are; counts, mean, least and largest are exact. The layout is that of DDSketch (Masson et
al., VLDB 2019) without its collapsing: 0.1 ms to 100 s take 13,816 buckets at most, and only used ones exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

ACCURACY = 0.0005  # relative error at most
LEAST_SECONDS = 1e-9  # what is below counts as nothing: clocks tell no less
_GROWTH = math.log((1 + ACCURACY) / (1 - ACCURACY))
_MIDDLE = 1 - ACCURACY  # of a bucket, over its upper edge: equally far (relatively) from both edges
_NANO = 1_000_000_000


class Sketch:
    """Values in seconds. Merging is exact: any order of any grouping gives the same sketch."""

    __slots__ = ("buckets", "count", "largest", "least", "nanoseconds", "nothing")

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.buckets: dict[int, int] = {}
        self.count = self.nothing = 0
        self.nanoseconds = 0  # whole ones: sums of floats would depend on their order
        self.least, self.largest = math.inf, -math.inf
        self.add_all(values)

    def add(self, value: float, times: int = 1) -> None:
        """Raises ValueError for NaN and infinity: they have no place in any order of seconds."""
        if not math.isfinite(value):
            raise ValueError(f"{value} seconds cannot be counted")
        if times < 1:
            return
        if value < LEAST_SECONDS:
            self.nothing += times
        else:
            index = math.ceil(math.log(value) / _GROWTH)
            self.buckets[index] = self.buckets.get(index, 0) + times
        self.count += times
        self.nanoseconds += round(value * _NANO) * times
        self.least, self.largest = min(self.least, value), max(self.largest, value)

    def add_all(self, values: Iterable[float]) -> None:
        for value in values:
            self.add(value)

    def merge(self, other: Sketch) -> None:
        """Takes in what `other` counted."""
        for index, times in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + times
        self.count += other.count
        self.nothing += other.nothing
        self.nanoseconds += other.nanoseconds
        self.least, self.largest = min(self.least, other.least), max(self.largest, other.largest)

    @property
    def mean(self) -> float:
        """To the nanosecond. Of nothing: 0."""
        return self.nanoseconds / _NANO / self.count if self.count else 0.0

    def quantiles(self, wanted: Iterable[float]) -> list[float]:
        """The smallest value that at least each share of all do not exceed, in the order of `wanted`; within
        `ACCURACY` of it. Raises ValueError if nothing was counted."""
        if not self.count:
            raise ValueError("nothing was counted")
        shares = list(wanted)
        # As in `summary.quantile`: the subtraction forgives a product a hair above a whole number.
        ranks = sorted((max(1, math.ceil(share * self.count - 1e-9)), at) for at, share in enumerate(shares))
        found = [0.0] * len(shares)
        buckets = iter(sorted(self.buckets.items()))
        reached, value = self.nothing, max(0.0, self.least)
        for rank, at in ranks:
            while reached < rank:
                index, times = next(buckets)
                reached += times
                value = min(max(math.exp(index * _GROWTH) * _MIDDLE, self.least), self.largest)
            found[at] = self.largest if rank == self.count else value  # the last one is known
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "accuracy": ACCURACY,
            "count": self.count,
            "nothing": self.nothing,
            "nanoseconds": self.nanoseconds,
            "least": self.least if self.count else None,
            "largest": self.largest if self.count else None,
            "buckets": sorted(self.buckets.items()),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Sketch:
        """Raises ValueError if its buckets are others than ours."""
        if document["accuracy"] != ACCURACY:
            raise ValueError(f"buckets of accuracy {document['accuracy']} do not fit ours of {ACCURACY}")
        sketch = cls()
        sketch.count, sketch.nothing = int(document["count"]), int(document["nothing"])
        sketch.nanoseconds = int(document["nanoseconds"])
        if sketch.count:
            sketch.least, sketch.largest = float(document["least"]), float(document["largest"])
        sketch.buckets = {int(index): int(times) for index, times in document["buckets"]}
        return sketch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


def merged(sketches: Iterable[Sketch]) -> Sketch:
    total = Sketch()
    for sketch in sketches:
        total.merge(sketch)
    return total
