"""How likely is it by chance? Exact tests for counts, and how many tests share one alpha."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


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
