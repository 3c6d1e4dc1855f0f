"""Pure arithmetic of measured pairs. Values of a pair were taken one right after the other, so that whatever
else the machine did at the time is in both of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of some values, all in their unit."""

    median: float
    least: float
    greatest: float
    count: int


@dataclass(frozen=True)
class Pair:
    """What was measured of ours and of the peer, in the same unit."""

    ours: float
    peer: float


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError for no values."""
    if not values:
        raise ValueError("no values were measured: a spread needs at least one")
    return Spread(median(values), min(values), max(values), len(values))


def ratios(pairs: Sequence[Pair]) -> Spread:
    """Spread of ours / peer, pair by pair. Raises ValueError where a peer took nothing."""
    if any(pair.peer <= 0 for pair in pairs):
        raise ValueError("a peer measured 0 or less: there is no ratio to it")
    return spread([pair.ours / pair.peer for pair in pairs])
