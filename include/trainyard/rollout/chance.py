"""How likely is it by chance? Exact tests for counts, a block bootstrap for quantiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BATCH = 4_000_000  # resamples x values at a time: bounds memory to a hundred megabytes
SHORT_SERIES = 30  # values, below which nothing is said about what neighbours have in common
CELLS = 200_000_000  # resamples x values at most: about two seconds


def binomial_at_least(count: int, trials: int, probability: float) -> float:
    """P(X >= count) for X ~ Binomial(trials, probability), exactly."""
    if count <= 0:
        return 1.0
    if probability <= 0:
        return 0.0
    if probability >= 1:
        return 1.0
    if count < trials * probability:  # the other side is the short one
        return 1.0 - binomial_at_least(trials - count + 1, trials, 1.0 - probability)
    log_p, log_q = math.log(probability), math.log1p(-probability)
    return _falling(_log_ways(trials, k) + k * log_p + (trials - k) * log_q for k in range(count, trials + 1))


def binomial_two_sided(count: int, trials: int, probability: float) -> float:
    """Twice the smaller tail, at most 1."""
    upper = binomial_at_least(count, trials, probability)
    lower = binomial_at_least(trials - count, trials, 1.0 - probability)
    return min(1.0, 2 * min(upper, lower))


def fisher_more(count: int, trials: int, other_count: int, other_trials: int) -> float:
    """P of `count` or more of `trials`, if both had the same rate (Fisher's exact test, one-sided)."""
    hits = count + other_count
    # Whole numbers of that size would take minutes for ten thousand failures.
    ways = _log_ways(trials + other_trials, hits)
    return _falling(
        _log_ways(trials, k) + _log_ways(other_trials, hits - k) - ways
        for k in range(count, min(trials, hits) + 1)
    )


def _falling(logs: Iterable[float]) -> float:
    """Sum of exp(logs), which rise to a single summit and fall from it; at most 1."""
    total, last = 0.0, -math.inf
    for log in logs:
        total += math.exp(log)
        if log < last and math.exp(log) < 1e-18 * total:
            break
        last = log
    return min(1.0, total)


def _log_ways(of: int, chosen: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which hypotheses are rejected so that a single wrong rejection among all stays below `alpha`."""
    rejected = [False] * len(p_values)
    by_size = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for step, index in enumerate(by_size):
        if p_values[index] > alpha / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


def resamples(size: int, values: int) -> int:
    """How many bootstrap draws `values` values can afford, at most `size`."""
    return max(200, min(size, CELLS // max(1, values)))


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


def block_counts(units: int, draws: int, random: np.random.Generator, length: int | None = None) -> Ints:
    """How often each unit is drawn, shape (draws, units): circular blocks of consecutive units.

    Blocks keep what neighbours in time have in common; single draws would make intervals too narrow.
    """
    length = length or max(1, round(units ** (1 / 3)))
    blocks = math.ceil(units / length)
    starts = random.integers(0, units, size=(draws, blocks))
    drawn = ((starts[:, :, None] + np.arange(length)) % units).reshape(draws, -1)[:, :units]
    rows = np.repeat(np.arange(draws), units)
    counts: Ints = np.bincount(rows * units + drawn.ravel(), minlength=draws * units)
    return counts.reshape(draws, units)


def resampled_quantiles(values: Floats, units: Ints, counts: Ints, *levels: float) -> tuple[Floats, ...]:
    """Nearest-rank quantiles of every resample, one array of shape (draws,) a level.

    values: all values. units: which unit each belongs to (all token gaps of one request go together).
    counts: shape (draws, number of units). A resample without a value gives NaN.
    """
    by_size = np.argsort(values, kind="stable")
    ordered, owner = values[by_size], units[by_size]
    found = np.empty((len(levels), len(counts)))
    batch = max(1, BATCH // max(1, len(values)))
    for start in range(0, len(counts), batch):
        weights = np.cumsum(counts[start : start + batch][:, owner], axis=1)
        total = weights[:, -1]
        for row, level in enumerate(levels):
            rank = (weights < np.ceil(level * total - 1e-9)[:, None]).sum(axis=1)
            found[row, start : start + batch] = np.where(
                total > 0, ordered[np.minimum(rank, len(ordered) - 1)], np.nan
            )
    return tuple(found)
