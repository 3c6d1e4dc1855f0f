"""Evidence that may be looked at after every pair: e-processes. Pure arithmetic on arrays.

An e-process is the worth of a bet against the null hypothesis, begun with 1. While the null holds, the chance
that it *ever* reaches 1 / alpha is at most alpha (Ville), however often anybody looks. A mean of e-processes
is one too: that is how several metrics share one alpha. The derivation is in docs/judging.md.

The null, of latencies: at its moment, a request to the canary takes stochastically no longer than `allowed`
would, which is what the baseline's takes times the margin. Nothing is assumed of the shape of the noise.

All functions take arrays of shape (..., pairs) in order of completion and return the logarithm of the running
worth, same shape. NaN: the pair says nothing, and the worth stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trainyard.rollout.chance import Floats

BODY_BETS = (0.5, 1.0, 2.0, 5.0)  # a unit of log ratio; each is the best one for another effect and noise
TAIL_BETS = (0.4, 1.2)
ERROR_BETS = (0.02, 0.1, 0.3, 0.7)  # how far of the way from the allowed rate to 1 the true one may be
LEVELS = (0.95, 0.99)  # of what was seen so far, both arms together: what counts as slow from now on
FIRST_LEVELS = 25  # pairs, after which there are levels; set anew whenever the number has doubled
LAGS = (4, 20)  # pairs over which noise of one arm alone may last


def body(log_ratio: Floats) -> Floats:
    """Against "no slower as a whole". log_ratio: log of the canary's time over what is allowed."""
    return _mixed(log_ratio, BODY_BETS, inflation(log_ratio))


def tail(canary: Floats, allowed: Floats) -> Floats:
    """Against "no slower in its slowest part". Of pairs in which one side only was slow, at most half are the
    canary's; which level is slow was fixed by pairs before."""
    known = np.isfinite(canary) & np.isfinite(allowed)
    ours, theirs = np.where(known, canary, np.nan), np.where(known, allowed, np.nan)
    noise = inflation(np.log(np.where(known, ours / theirs, 1.0)))
    worth = []
    for level in LEVELS:
        slow = _slow_from(ours, theirs, level)
        worth.append(_mixed((ours > slow) * 1.0 - (theirs > slow) * 1.0, TAIL_BETS, noise))
    return mean_worth(worth, [1 / len(LEVELS)] * len(LEVELS))


def slow_alone(canary: Floats, allowed: Floats) -> tuple[int, int]:
    """Of pairs with one slow side, how many times that was the canary, and how many times `allowed`; at the
    level at which they differ most. Shape of both: (pairs,)."""
    found = []
    for level in LEVELS:
        slow = _slow_from(canary, allowed, level)
        ours, theirs = canary > slow, allowed > slow
        found.append((int((ours & ~theirs).sum()), int((theirs & ~ours).sum())))
    return max(found, key=lambda counts: counts[0] - counts[1])


def errors(canary: Floats, baseline: Floats | None, rate: float) -> Floats:
    """Against "fails no oftener than `rate`, or no oftener than the baseline". 1 failed, 0 did not.

    Both have to be disproved, so the smaller worth counts: what the arms share is not the canary's fault.
    """
    rate = min(max(rate, 1e-6), 1 - 1e-6)
    seen = np.where(np.isfinite(canary), canary, rate)
    worth = []
    for part in ERROR_BETS:
        bet = part * (1 - rate) / (rate * (1 - rate))
        worth.append(np.cumsum(np.log1p(bet * (seen - rate)), axis=-1))
    over = mean_worth(worth, [1 / len(worth)] * len(worth))
    if baseline is None:
        return over
    more = _mixed(canary - baseline, TAIL_BETS, np.ones_like(canary))
    least: Floats = np.minimum(over, more)
    return least


def failures(failed: Floats, ended: Floats, rate: float) -> Floats:
    """Against "fails no oftener than `rate`", told in spans: how many failed of those that ended in each."""
    rate = min(max(rate, 1e-6), 1 - 1e-6)
    worth = []
    for part in ERROR_BETS:
        bet = part / rate
        won, lost = np.log1p(bet * (1 - rate)), np.log1p(-bet * rate)
        worth.append(np.cumsum(failed * won + (ended - failed) * lost, axis=-1))
    return mean_worth(worth, [1 / len(worth)] * len(worth))


def mean_worth(worth: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """log of the weighted mean of exp(worth)."""
    stacked = np.stack([each + math.log(weight) for each, weight in zip(worth, weights, strict=True)])
    highest = stacked.max(axis=0)
    total: Floats = highest + np.log(np.exp(stacked - highest).sum(axis=0))
    return total


def inflation(log_ratio: Floats) -> Floats:
    """By how much noise that lasts widens a sum of log ratios, at least 1, from the pairs before each.

    What slows both arms cancels out in the ratio. What slows one arm alone for a while does not: then
    neighbours are alike, and pairs prove less than their number.
    """
    values = np.where(np.isfinite(log_ratio), log_ratio, 0.0)
    count = np.arange(1, values.shape[-1] + 1, dtype=np.float64)
    total = np.cumsum(values, axis=-1)
    mean = total / count
    variance = np.maximum(np.cumsum(values**2, axis=-1) / count - mean**2, 1e-12)
    worst = np.ones_like(values)
    for longest in LAGS:
        sums = np.zeros_like(values)
        for lag in range(1, min(longest, values.shape[-1] - 1) + 1):
            products = np.zeros_like(values)
            products[..., lag:] = values[..., lag:] * values[..., :-lag]
            late = total - total[..., lag - 1 : lag]  # without the first `lag` values
            early = np.zeros_like(values)
            early[..., lag:] = total[..., :-lag]
            covariance = (
                np.cumsum(products, axis=-1) - mean * (late + early) + np.maximum(count - lag, 0) * mean**2
            )
            weight = 1 - lag / (longest + 1)
            sums += np.where(count > lag, weight * covariance / count / variance, 0.0)
        worst = np.maximum(worst, np.where(count > 2 * LAGS[0], 1 + 2 * sums, 1.0))
    before = np.ones_like(values)
    before[..., 1:] = worst[..., :-1]
    return before


def _mixed(score: Floats, bets: Sequence[float], noise: Floats) -> Floats:
    """Mean over `bets` of the running product of exp(x - noise * log cosh x), x = bet * score.

    With noise 1 that is 1 + tanh(x), whose mean is at most 1 for a score that is symmetric, or lower.
    """
    score = np.where(np.isfinite(score), score, 0.0)
    worth = [np.cumsum(bet * score - noise * _log_cosh(bet * score), axis=-1) for bet in bets]
    return mean_worth(worth, [1 / len(bets)] * len(bets))


def _log_cosh(x: Floats) -> Floats:
    size = np.abs(x)
    value: Floats = size + np.log1p(np.exp(-2 * size)) - math.log(2)
    return value


def _slow_from(ours: Floats, theirs: Floats, level: float) -> Floats:
    """From which value on a pair counts as slow, for every pair; infinite while nobody knows."""
    limits = np.full(ours.shape, np.inf)
    pairs, start = ours.shape[-1], FIRST_LEVELS
    while start < pairs:
        past = np.sort(np.concatenate([ours[..., :start], theirs[..., :start]], axis=-1), axis=-1)
        known = np.isfinite(past).sum(axis=-1, keepdims=True)  # NaN is sorted to the end
        at = np.clip(np.ceil(level * known).astype(np.int64) - 1, 0, None)
        limit = np.take_along_axis(past, at, axis=-1)
        limits[..., start : 2 * start] = np.where(known >= FIRST_LEVELS, limit, np.inf)
        start *= 2
    return limits
