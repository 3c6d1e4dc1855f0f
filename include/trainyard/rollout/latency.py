"""Latencies of the canary against their limits and against the baseline's.

- An SLO: p95 within its limit passes; over it fails if the whole interval is, else it is inconclusive.
- A median has to be shown to be no worse than the baseline's by more than the margin: the upper end of its
  interval decides. (Non-inferiority. Every metric has to show it, so passing needs no correction.)
- A tail (p95) fails when it is shown to be worse by more than the margin. It is inconclusive when it is shown
  to be worse at all and its estimate is beyond the margin. It need not be shown to be no worse: that takes
  about 280 requests an arm (+25 %), and the SLO bounds the tail besides.
- Failing by comparison needs the lower end beyond the margin, at a level that all comparisons share (Holm).
- Intervals come from a bootstrap over blocks of consecutive pairs. Both arms are drawn together, so what
  slowed both down cancels out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainyard.rollout.chance import Floats, block_counts, holm, resampled_quantiles, resamples
from trainyard.rollout.measured import Arm, Values
from trainyard.rollout.verdict import COMPARED, Check, Kind, Objectives, Outcome

STATISTICS = {"p50": 0.50, "p95": 0.95}
DRAWS = 1000
MIN_DRAWS = 0.9  # of the resamples must hold a value at all


def check_slos(canary: Arm, objectives: Objectives, random: np.random.Generator) -> list[Check]:
    """p95 against its limit. Over it is a failure if the whole interval is over it."""
    limits = {
        "ttft": objectives.ttft_p95_seconds,
        "itl": objectives.itl_p95_seconds,
        "e2e": objectives.e2e_p95_seconds,
    }
    checks = []
    for metric, limit in limits.items():
        if limit is None:
            continue
        values = canary.values(metric)
        if not values.usable:
            checks.append(_unusable(metric, "slo", "canary", values, canary))
            continue
        counts = block_counts(canary.units, resamples(DRAWS, len(values.seconds)), random)
        drawn = resampled_quantiles(values.seconds, values.units, counts, STATISTICS["p95"])
        drawn = drawn[np.isfinite(drawn)]
        point = _quantile(values, STATISTICS["p95"])
        low, high = _interval(drawn, objectives.confidence)
        outcome: Outcome = "pass" if point <= limit else "fail" if low > limit else "inconclusive"
        text = f"{metric} p95 {say_time(point)} (allowed {say_time(limit)})"
        if outcome != "pass":
            over = f"{point / limit:.2f} x"
            text = f"{metric} p95 {say_time(point)} is over its limit of {say_time(limit)} ({over})"
        if outcome == "inconclusive":
            text += f", but {say_time(low)} cannot be ruled out"
        checks.append(
            Check(
                metric=metric, statistic="p95", kind="slo", outcome=outcome, text=text, arm_value=point,
                limit=limit, low=low, high=high,
            )
        )  # fmt: skip
    return checks


@dataclass(frozen=True)
class Pair:
    """One statistic of one metric, of both arms, in seconds. ours, theirs: its resamples, shape (draws,)."""

    metric: str
    statistic: str
    ours: Floats
    theirs: Floats
    point: float
    base: float


def compare(canary: Arm, baseline: Arm, objectives: Objectives, random: np.random.Generator) -> list[Check]:
    """Canary over baseline, median and p95 of every metric that has a margin."""
    checks: list[Check] = []
    pairs: list[Pair] = []
    for metric in COMPARED:
        if metric not in objectives.max_ratio:
            continue
        ours, theirs = canary.values(metric), baseline.values(metric)
        for values, arm, name in ((ours, canary, "canary"), (theirs, baseline, "baseline")):
            if not values.usable:
                checks.append(_unusable(metric, "baseline", name, values, arm))
        if not (ours.usable and theirs.usable):
            continue
        draws = resamples(DRAWS, max(len(ours.seconds), len(theirs.seconds)))
        counts = block_counts(canary.units, draws, random)
        other = counts if baseline.paired else block_counts(baseline.units, draws, random)
        for statistic, q in STATISTICS.items():
            mine = resampled_quantiles(ours.seconds, ours.units, counts, q)
            base = resampled_quantiles(theirs.seconds, theirs.units, other, q)
            drawn = np.isfinite(mine) & np.isfinite(base)
            if drawn.mean() < MIN_DRAWS:
                checks.append(_unusable(metric, "baseline", "pair of arms", ours, canary))
                continue
            pairs.append(
                Pair(metric, statistic, mine[drawn], base[drawn], _quantile(ours, q), _quantile(theirs, q))
            )
    not_beyond = [_share(pair.ours <= _allowed(pair.theirs, pair.metric, objectives)) for pair in pairs]
    failed = holm(not_beyond, 1 - objectives.confidence)
    return checks + [
        _judge_pair(pair, beyond, objectives) for pair, beyond in zip(pairs, failed, strict=True)
    ]


def _judge_pair(pair: Pair, beyond: bool, objectives: Objectives) -> Check:
    """beyond: shown to be worse by more than the margin."""
    alpha = 1 - objectives.confidence
    margin = objectives.max_ratio[pair.metric]
    floor = objectives.floor_seconds.get(pair.metric, 0.0)
    within = bool(pair.point <= _allowed(pair.base, pair.metric, objectives))
    if pair.statistic == "p50":
        holds = within and _share(pair.ours > _allowed(pair.theirs, pair.metric, objectives)) <= alpha
    else:
        holds = within or _share(pair.ours <= pair.theirs + floor) > alpha
    outcome: Outcome = "fail" if beyond else "pass" if holds else "inconclusive"
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _interval(pair.ours / pair.theirs, objectives.confidence)
    ratio = f"{pair.point / pair.base:.2f} x" if pair.base > 0 else "more than"
    text = (
        f"{pair.metric} {pair.statistic} {say_time(pair.point)} is {ratio} "
        f"the baseline's {say_time(pair.base)}; allowed {margin:g} x"
    )
    if within and pair.point > margin * pair.base:
        text += f", or {say_time(floor)} more"
    elif outcome == "pass" and not within:
        text += ", but no worse beyond chance"
    if outcome == "inconclusive":
        text += f" (between {low:.2f} x and {high:.2f} x: not enough data)"
    return Check(
        metric=pair.metric, statistic=pair.statistic, kind="baseline", outcome=outcome, text=text,
        arm_value=pair.point, baseline_value=pair.base, limit=margin, low=_finite(low), high=_finite(high),
    )  # fmt: skip


def _allowed(base: Any, metric: str, objectives: Objectives) -> Any:
    """The most that the canary may take where the baseline takes `base` seconds (a number or an array)."""
    floor = objectives.floor_seconds.get(metric, 0.0)
    return np.maximum(base * objectives.max_ratio[metric], base + floor)


def _share(hits: Any) -> float:
    """Of the resamples that say so: a p-value, which is never quite zero."""
    return float((1 + np.count_nonzero(hits)) / (1 + len(hits)))


def _interval(drawn: Floats, confidence: float) -> tuple[float, float]:
    """Each end one-sided at `confidence`."""
    low, high = np.quantile(drawn, [1 - confidence, confidence])
    return float(low), float(high)


def _quantile(values: Values, q: float) -> float:
    return float(np.quantile(values.seconds, q, method="inverted_cdf"))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _unusable(metric: str, kind: Kind, name: str, values: Values, arm: Arm) -> Check:
    text = f"{metric} was never measured on the {name}"
    if values.missing:
        text = (
            f"{metric} is missing or no number in {values.missing} of {arm.succeeded} answers of the {name}"
        )
    return Check(metric=metric, statistic="p95", kind=kind, outcome="inconclusive", text=text)


def say_time(seconds: float) -> str:
    """`8.3 ms`, `312 ms`, `1.24 s`."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
