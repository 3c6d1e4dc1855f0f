"""Latencies of the canary against their limits and against the baseline's.

- An SLO: p95 within its limit passes; over it fails if the whole interval is, else it is inconclusive.
- A median has to be shown to be no worse than the baseline's by more than the margin: the upper end of its
  interval decides. (Non-inferiority. Every metric has to show it, so passing needs no correction.)
- So has p95, once there are as many requests as that takes (`tail_size`, known before the first one). With
  fewer, and for p99, a tail passes that is not worse beyond chance, or not beyond the margin by estimate: the
  SLO bounds it besides.
- Failing needs the lower end beyond the margin, at a level that all comparisons share (Holm).
- Intervals come from a bootstrap over blocks of consecutive pairs, as long as the data's own memory. Both
  arms are drawn together, so what slowed both down cancels out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainyard.rollout import tails
from trainyard.rollout.chance import Floats, holm
from trainyard.rollout.measured import Arm, Values, unit_logs
from trainyard.rollout.resampling import Counts, block_counts, block_length, resampled_quantiles
from trainyard.rollout.verdict import COMPARED, Check, Kind, Objectives, Outcome, say_time

STATISTICS = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
# Successful requests an arm, below which a bootstrap promises more than it knows: it would fail a canary at
# the margin several times as often as agreed. Of 59 the slowest is beyond p95 19 times of 20.
FEWEST = {"p50": 20, "p95": 59, "p99": 0}
SMALLEST_TAIL = 300  # requests an arm: p95 then rests on fifteen, p99 on three
TAIL_WORK = 29.8  # (1.645 + 2.0)^2 x 2 x var(log p95) for log-normal noise of 0.5; see docs/judging.md
DRAWS = 1000
FINE_CELLS = 30_000_000  # draws x requests, up to which there are more draws for a tiny alpha
MIN_DRAWS = 0.9  # of the resamples must hold a value at all


def tail_size(margin: float) -> int:
    """Successful requests an arm from which on p95 has to be shown to be within the margin.

    So many that equal servers show it 49 times of 50 where log times scatter by 0.5.
    """
    return max(SMALLEST_TAIL, math.ceil(TAIL_WORK / math.log(margin) ** 2)) if margin > 1 else 2**62


def check_slos(canary: Arm, objectives: Objectives, random: np.random.Generator) -> list[Check]:
    """p95 against its limit. Over it is a failure if its whole interval is (Holm over the metrics)."""
    limits = {
        "ttft": objectives.ttft_p95_seconds,
        "itl": objectives.itl_p95_seconds,
        "e2e": objectives.e2e_p95_seconds,
    }
    checks = []
    judged: list[tuple[str, float, float, Floats]] = []
    for metric, limit in limits.items():
        if limit is None:
            continue
        values = canary.values(metric)
        if not values.usable:
            checks.append(_unusable(metric, "slo", "canary", values, canary))
            continue
        length = block_length(unit_logs(values, canary.units))
        counts = block_counts(canary.units, _draws(canary.units, objectives), random, length)
        (drawn,) = resampled_quantiles(values.seconds, values.units, counts, STATISTICS["p95"])
        if np.isfinite(drawn).mean() < MIN_DRAWS:
            checks.append(_unusable(metric, "slo", "canary", values, canary))
            continue
        drawn = drawn[np.isfinite(drawn)]
        judged.append((metric, limit, _quantile(values, STATISTICS["p95"]), drawn))
    over = holm([_share(drawn <= limit) for _, limit, _, drawn in judged], objectives.alpha)
    return checks + [
        _judge_slo(*each, beyond=beyond, objectives=objectives)
        for each, beyond in zip(judged, over, strict=True)
    ]


def _judge_slo(
    metric: str, limit: float, point: float, drawn: Floats, *, beyond: bool, objectives: Objectives
) -> Check:
    low, high = _interval(drawn, objectives.alpha)
    outcome: Outcome = "pass" if point <= limit else "fail" if beyond else "inconclusive"
    text = f"{metric} p95 {say_time(point)} (allowed {say_time(limit)})"
    if outcome != "pass":
        over = f"{point / limit:.2f} x"
        text = f"{metric} p95 {say_time(point)} is over its limit of {say_time(limit)} ({over})"
    if outcome == "inconclusive":
        text += f", but {say_time(low)} cannot be ruled out"
    return Check(
        metric=metric, statistic="p95", kind="slo", outcome=outcome, text=text, arm_value=point,
        limit=limit, low=low, high=high,
    )  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One statistic of one metric, of both arms, in seconds. ours, theirs: its resamples, shape (draws,).

    to_show: whether it has to be shown to be within the margin. relative: resamples of the ratio of the arms'
    quantiles of times over the level of their moment (`tails.local_level`), where there are pairs. excess:
    p-value and ratio of `tails.excess`. few: too few requests to show anything by its resamples.
    """

    metric: str
    statistic: str
    ours: Floats
    theirs: Floats
    point: float
    base: float
    to_show: bool
    relative: Floats | None = None
    excess: tuple[float, float] = (1.0, 1.0)
    few: bool = False


def compare(canary: Arm, baseline: Arm, objectives: Objectives, random: np.random.Generator) -> list[Check]:
    """Canary over baseline, median and tails of every metric that has a margin."""
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
        draws = _draws(max(canary.units, baseline.units), objectives)
        length = _memory(canary, baseline, ours, theirs)
        counts = block_counts(canary.units, draws, random, length)
        other = counts if baseline.paired else block_counts(baseline.units, draws, random, length)
        fewest = min(canary.succeeded, baseline.succeeded)
        named = [name for name in STATISTICS if name != "p99" or fewest >= SMALLEST_TAIL]
        levels = [STATISTICS[name] for name in named]
        drawn_ours = resampled_quantiles(ours.seconds, ours.units, counts, *levels)
        drawn_theirs = resampled_quantiles(theirs.seconds, theirs.units, other, *levels)
        sizes = {"p50": 0, "p95": tail_size(objectives.max_ratio[metric])}
        for statistic, mine, base in zip(named, drawn_ours, drawn_theirs, strict=True):
            drawn = np.isfinite(mine) & np.isfinite(base)
            if drawn.mean() < MIN_DRAWS:
                fewer = (ours, canary, "canary"), (theirs, baseline, "baseline")
                values, arm, name = min(fewer, key=lambda each: len(set(each[0].units.tolist())))
                checks.append(_unusable(metric, "baseline", name, values, arm))
                continue
            q = STATISTICS[statistic]
            to_show = statistic in sizes and fewest >= sizes[statistic]
            found = (mine[drawn], base[drawn], _quantile(ours, q), _quantile(theirs, q))
            relative = None
            if to_show and statistic != "p50" and canary.paired and baseline.paired:
                relative = _relative(ours, theirs, canary.units, counts, q)
            excess = (1.0, 1.0)
            if statistic == "p99" and canary.paired and baseline.paired:
                excess = tails.excess(unit_logs(ours, canary.units), unit_logs(theirs, baseline.units), q)
            few = fewest < FEWEST[statistic]
            pairs.append(Pair(metric, statistic, *found, to_show, relative, excess, few))
    beyond = holm([_too_slow(pair, objectives) for pair in pairs], objectives.alpha)
    worse = holm([_worse(pair, objectives) for pair in pairs], objectives.beta)
    return checks + [
        _judge_pair(pair, objectives, beyond=too_slow, worse=slower)
        for pair, too_slow, slower in zip(pairs, beyond, worse, strict=True)
    ]


def _draws(units: int, objectives: Objectives) -> int:
    """So many that the least of all p-values can be below what Holm asks of it: one in a thousand is no
    evidence against an alpha of a thousandth."""
    finest = math.ceil(len(COMPARED) * len(STATISTICS) / objectives.alpha)
    return max(DRAWS, min(finest, FINE_CELLS // max(1, units)))


def _memory(canary: Arm, baseline: Arm, ours: Values, theirs: Values) -> int:
    """Length of the blocks. Of pairs, the ratio's memory counts: what both arms share cancels out."""
    mine, base = unit_logs(ours, canary.units), unit_logs(theirs, baseline.units)
    if canary.paired and baseline.paired:
        return block_length(mine - base)
    return max(block_length(mine), block_length(base))


def _relative(ours: Values, theirs: Values, units: int, counts: Counts, q: float) -> Floats:
    """A drift that both arms share widens their tails, and with them the interval of the tails' ratio."""
    level = np.exp(tails.local_level(unit_logs(ours, units), unit_logs(theirs, units)))
    (mine,) = resampled_quantiles(ours.seconds / level[ours.units], ours.units, counts, q)
    (base,) = resampled_quantiles(theirs.seconds / level[theirs.units], theirs.units, counts, q)
    drawn: Floats = mine / base
    return np.where(np.isfinite(drawn), drawn, np.inf)


def _too_slow(pair: Pair, objectives: Objectives) -> float:
    """p-value of "within the margin"."""
    return 1.0 if pair.few else _share(pair.ours <= _allowed(pair.theirs, pair.metric, objectives))


def _worse(pair: Pair, objectives: Objectives) -> float:
    """p-value of "no worse than the baseline at all"."""
    drawn = _share(pair.ours <= pair.theirs + objectives.floor_seconds.get(pair.metric, 0.0))
    return min(1.0, 2 * min(drawn, pair.excess[0])) if pair.statistic == "p99" else drawn


def _judge_pair(pair: Pair, objectives: Objectives, *, beyond: bool, worse: bool) -> Check:
    """beyond: shown to be worse by more than the margin. worse: shown to be worse at all."""
    margin = objectives.max_ratio[pair.metric]
    floor = objectives.floor_seconds.get(pair.metric, 0.0)
    worst = max(pair.point, pair.base * pair.excess[1])
    within = bool(worst <= _allowed(pair.base, pair.metric, objectives))
    if pair.to_show and pair.few:
        holds = False
    elif pair.to_show:
        ours, theirs = pair.ours, pair.theirs
        if pair.relative is not None:
            ours, theirs = pair.relative * pair.base, np.full_like(pair.relative, pair.base)
        holds = within and _share(ours > _allowed(theirs, pair.metric, objectives)) <= objectives.beta
    else:
        holds = within or not worse
    outcome: Outcome = "fail" if beyond else "pass" if holds else "inconclusive"
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _interval(pair.ours / pair.theirs, objectives.alpha)
    ratio = f"{pair.point / pair.base:.2f} x" if pair.base > 0 else "more than"
    text = (
        f"{pair.metric} {pair.statistic} {say_time(pair.point)} is {ratio} "
        f"the baseline's {say_time(pair.base)}; allowed {margin:g} x"
    )
    if within and pair.point > margin * pair.base:
        text += f", or {say_time(floor)} more"
    elif outcome == "pass" and not within:
        text += ", but no worse beyond chance"
    if worst > pair.point and not within:
        text += f", {pair.excess[1]:.2f} x without the drift of both"
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


def _interval(drawn: Floats, alpha: float) -> tuple[float, float]:
    """Each end is beyond the truth with probability alpha."""
    low, high = np.quantile(drawn, [alpha, 1 - alpha])
    return float(low), float(high)


def _quantile(values: Values, q: float) -> float:
    return float(np.quantile(values.seconds, q, method="inverted_cdf"))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _unusable(metric: str, kind: Kind, name: str, values: Values, arm: Arm) -> Check:
    seen = len(set(values.units.tolist()))
    text = f"{metric} was measured in {seen} of {arm.succeeded} answers of the {name}: too few to judge it"
    if not seen:
        text = f"{metric} was never measured on the {name}"
    if values.missing:
        text = (
            f"{metric} is missing or no number in {values.missing} of {arm.succeeded} answers of the {name}"
        )
    return Check(metric=metric, statistic="p95", kind=kind, outcome="inconclusive", text=text)
