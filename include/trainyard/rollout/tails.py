"""Are a canary's slowest requests slower than they should be? Told apart from a drift that both arms share.

A drift of the load hides a tail: the slowest requests are then those of the slowest minute. So every request
is measured against the level of its time, the median of both arms around it. That treats the arms alike, so
that under the null each of the slowest requests is as likely the canary's as the baseline's: an exact test.
"""

from __future__ import annotations

import math

import numpy as np

from trainyard.rollout.chance import Floats, fisher_more

NEAR = 10  # pairs before and after that make up the level


def excess(canary: Floats, baseline: Floats, q: float) -> tuple[float, float]:
    """p-value of "no more of the slowest (1 - q) are the canary's", and the ratio of the arms' quantiles q.

    canary, baseline: mean log seconds of every pair's request, shape (pairs,); NaN: it failed.
    """
    level = local_level(canary, baseline)
    ours, theirs = canary - level, baseline - level
    ours, theirs = ours[np.isfinite(ours)], theirs[np.isfinite(theirs)]
    if not len(ours) or not len(theirs):
        return 1.0, 1.0
    both = np.sort(np.concatenate([ours, theirs]))
    slow = both[-max(1, math.ceil((1 - q) * len(both) - 1e-9))]
    p_value = fisher_more(int((ours >= slow).sum()), len(ours), int((theirs >= slow).sum()), len(theirs))
    quantiles = [float(np.quantile(values, q, method="inverted_cdf")) for values in (ours, theirs)]
    return p_value, math.exp(min(quantiles[0] - quantiles[1], 50.0))


def local_level(canary: Floats, baseline: Floats) -> Floats:
    """Median of both arms from NEAR pairs before to NEAR after, shape (pairs,); NaN where there is none."""
    padded = np.pad(np.stack([canary, baseline]), ((0, 0), (NEAR, NEAR)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEAR + 1, axis=1)
    near = windows.transpose(1, 0, 2).reshape(len(canary), -1)
    known = np.isfinite(near).any(axis=1)
    level = np.full(len(canary), np.nan)
    if known.any():
        level[known] = np.nanmedian(near[known], axis=1)
    return level
