"""A block bootstrap for quantiles: what might have been measured instead of what was."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from trainyard.rollout.chance import Floats, Ints

Counts = npt.NDArray[np.int32] | Ints

BATCH = 4_000_000  # numbers at a time: bounds memory to a hundred megabytes
SHORT_SERIES = 30  # values, below which nothing is said about what neighbours have in common


def block_length(series: Floats) -> int:
    """How long blocks of a circular bootstrap should be (Politis and White 2004, with its 2009 correction).

    series: one value a unit, in order; NaN: none. At least the cube root of its length, at most a tenth.
    """
    units = len(series)
    least: int = max(1, round(units ** (1 / 3)))
    known = np.isfinite(series)
    if known.sum() < SHORT_SERIES:
        return least
    values = np.where(known, series - np.mean(series[known]), 0.0)
    longest = min(units // 4, 5 * math.ceil(math.sqrt(units)))
    covariance = np.array([values[: units - lag] @ values[lag:] / units for lag in range(longest + 1)])
    if covariance[0] <= 0:
        return least
    near = np.abs(covariance[1:] / covariance[0]) < 2 * math.sqrt(math.log10(units) / units)
    quiet = max(5, math.ceil(math.sqrt(math.log10(units))))  # lags in a row that show nothing
    ends = [lag for lag in range(longest - quiet + 1) if near[lag : lag + quiet].all()]
    reach = min(longest, 2 * max(1, ends[0] if ends else longest))
    lags = np.arange(1, reach + 1)
    weights = np.minimum(1.0, 2 * (1 - lags / reach))
    slope = 2 * float(np.sum(weights * lags * covariance[1 : reach + 1]))
    spectrum = float(covariance[0] + 2 * np.sum(weights * covariance[1 : reach + 1]))
    if spectrum <= 0 or slope <= 0:
        return least
    best: float = (2 * slope**2 / (4 / 3 * spectrum**2)) ** (1 / 3) * units ** (1 / 3)
    return max(least, min(math.ceil(best), units // 10))


def block_counts(units: int, draws: int, random: np.random.Generator, length: int | None = None) -> Counts:
    """How often each unit is drawn, shape (draws, units): circular blocks of consecutive units.

    Blocks keep what neighbours in time have in common; single draws would make intervals too narrow.
    """
    length = length or max(1, round(units ** (1 / 3)))
    starts = random.integers(0, units, size=(draws, math.ceil(units / length)))
    counts = np.empty((draws, units), dtype=np.int32)
    for some in _batches(draws, units):
        blocks = (starts[some, :, None] + np.arange(length)) % units
        drawn = blocks.reshape(len(blocks), -1)[:, :units]
        places = drawn + units * np.arange(len(drawn))[:, None]
        counts[some] = np.bincount(places.ravel(), minlength=drawn.size).reshape(drawn.shape)
    return counts


def resampled_quantiles(values: Floats, units: Ints, counts: Counts, *levels: float) -> tuple[Floats, ...]:
    """Nearest-rank quantiles of every resample, one array of shape (draws,) a level.

    values: all values. units: which unit each belongs to (all token gaps of one request go together).
    counts: shape (draws, number of units). A resample without a value gives NaN.
    """
    by_size = np.argsort(values, kind="stable")
    ordered, owner = values[by_size], units[by_size]

    @functools.cache  # a window is looked for around the same places
    def weight_before(place: int) -> Ints:
        """Of every resample, how many of its values are among the first `place`."""
        each = np.bincount(owner[:place], minlength=counts.shape[1]).astype(np.float64)
        found = [counts[batch] @ each for batch in _batches(*counts.shape)]  # floats are faster, and exact
        return np.concatenate(found).astype(np.int64)

    total = weight_before(len(ordered))
    found = np.full((len(levels), len(counts)), np.nan)
    some = total > 0
    for row, level in enumerate(levels):
        ranks = np.ceil(level * total - 1e-9).astype(np.int64)
        first, last = _window(weight_before, ranks[some], some, len(ordered), level)
        before = weight_before(first)
        for batch in _batches(len(counts), last - first):
            upto = before[batch, None] + np.cumsum(counts[batch][:, owner[first:last]], axis=1)
            place = first + (upto < ranks[batch, None]).sum(axis=1)
            found[row, batch] = ordered[np.minimum(place, len(ordered) - 1)]
    found[:, ~some] = np.nan
    return tuple(found)


def _window(
    weight_before: Callable[[int], Ints], ranks: Ints, some: npt.NDArray[np.bool_], values: int, level: float
) -> tuple[int, int]:
    """Between which places, the last one excluded, the quantiles of all resamples lie.

    Those are near that of the whole: to add up only the values around it takes a fraction of the time where a
    long load test has millions of them.
    """
    middle = math.ceil(level * values - 1e-9)
    if not len(ranks):
        return middle, middle
    missing = ranks - weight_before(middle)[some]
    low, high = max(0, -int(missing.min())), max(1, int(missing.max()))
    first, last = middle, middle
    while first > 0 and (weight_before(first)[some] >= ranks).any():
        first = max(0, middle - low)
        low = 2 * low + 1
    while last < values and (weight_before(last)[some] < ranks).any():
        last = min(values, middle + high)
        high = 2 * high
    return first, last


def _batches(rows: int, columns: int) -> Iterator[slice]:
    """Rows of a table, so many at a time that they hold BATCH numbers."""
    batch = max(1, BATCH // max(1, columns))
    for start in range(0, rows, batch):
        yield slice(start, start + batch)
