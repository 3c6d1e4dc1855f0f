"""The servers' own figures of both arms, compared: means, and tails by their buckets. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainyard.rollout import evidence
from trainyard.rollout.chance import Floats, holm
from trainyard.rollout.histograms import Histogram, Span, added, beyond, together
from trainyard.rollout.resampling import block_counts, block_length
from trainyard.rollout.verdict import Check, Objectives, Outcome, say_time

DRAWS = 1000
FEWEST_SPANS = 10  # of which both arms say something; below, a bootstrap over spans means nothing
FEWEST_IN_SPAN = 3  # observations; a mean of fewer is mostly chance
TAIL = (0.005, 0.2)  # an edge beyond which less or more of either arm is tells nothing of a tail


def gap(metric: str, text: str, statistic: str = "count") -> Check:
    return Check(metric=metric, statistic=statistic, kind="samples", outcome="inconclusive", text=text)


def compared(
    canary: Sequence[Span],
    baseline: Sequence[Span],
    metric: str,
    objectives: Objectives,
    random: np.random.Generator,
) -> list[Check]:
    """One metric's mean and tail; both arms have as many spans."""
    mine, base = together(canary).histograms.get(metric), together(baseline).histograms.get(metric)
    if mine is None or base is None:
        who = "canary" if mine is None else "baseline"
        return [gap(metric, f"servers: {metric} is missing on the {who}", "mean")]
    if min(mine.count, base.count) < objectives.min_samples:
        text = f"servers: {mine.count:.0f} and {base.count:.0f} figures of {metric}"
        return [gap(metric, f"{text}; {objectives.min_samples} are needed of each", "mean")]
    for who, histogram in (("canary", mine), ("baseline", base)):
        if not histogram.coherent:
            text = f"servers: {histogram.total:g} s of {metric} do not fit the buckets of the {who}"
            return [gap(metric, text, "mean")]
    parts = grouped(canary, baseline, metric)
    if len(parts) < FEWEST_SPANS:
        text = f"servers: {len(parts)} spans with {metric} of both arms; {FEWEST_SPANS} are needed"
        return [gap(metric, text, "mean")]
    drawn = drawn_spans([part for part, _ in parts], random, [other for _, other in parts])
    return [
        _means(parts, drawn, metric, objectives),
        _tails(parts, drawn, metric, objectives),
    ]


def grouped(
    canary: Sequence[Span], baseline: Sequence[Span], metric: str
) -> list[tuple[Histogram, Histogram]]:
    """Spans of both arms, as many put together as it takes until each has enough to be a mean of.

    A canary with a twentieth of the traffic has seldom enough in one. Only counts decide, not times, so that
    no bet is bent by it.
    """
    found: list[tuple[Histogram, Histogram]] = []
    held: list[tuple[Histogram, Histogram]] = []
    for span, other in zip(canary, baseline, strict=True):
        mine, base = span.histograms.get(metric), other.histograms.get(metric)
        if mine is None or base is None:
            continue
        held.append((mine, base))
        ours, theirs = added([pair[0] for pair in held]), added([pair[1] for pair in held])
        if ours is None or theirs is None:  # other buckets from now on: another server, in truth
            held = []
        elif min(ours.count, theirs.count) >= FEWEST_IN_SPAN:
            found.append((ours, theirs))
            held = []
    return found


def alarm(parts: Sequence[tuple[Histogram, Histogram]], metric: str, objectives: Objectives) -> bool:
    margin, floor = objectives.max_ratio[metric], objectives.floor_seconds.get(metric, 0.0)
    means = np.array([[max(each.total / each.count, 1e-9) for each in pair] for pair in parts])
    limits = np.maximum(means[:, 1] * margin, means[:, 1] + floor)
    worth = evidence.body(np.log(means[:, 0]) - np.log(limits))
    return bool(worth[FEWEST_SPANS - 1 :].max() >= needed(objectives))


def needed(objectives: Objectives) -> float:
    """log of the worth that one of the bets has to reach."""
    return float(np.log((len(objectives.max_ratio) + 1) / (1 - objectives.confidence)))


def _means(
    parts: Sequence[tuple[Histogram, Histogram]], drawn: Floats, metric: str, objectives: Objectives
) -> Check:
    margin, floor = objectives.max_ratio[metric], objectives.floor_seconds.get(metric, 0.0)
    totals = np.array([[each.total for each in pair] for pair in parts])
    counts = np.array([[each.count for each in pair] for pair in parts])
    ours, theirs = totals.sum(axis=0) / counts.sum(axis=0)
    resampled = (drawn @ totals) / (drawn @ counts)
    allowed = np.maximum(resampled[:, 1] * margin, resampled[:, 1] + floor)
    alarmed = alarm(parts, metric, objectives)
    shown_over = share(resampled[:, 0] <= allowed) <= objectives.alpha / len(objectives.max_ratio)
    shown_within = share(resampled[:, 0] > allowed) <= objectives.beta
    outcome: Outcome = "fail" if alarmed or shown_over else "pass" if shown_within else "inconclusive"
    ratio = ours / theirs if theirs > 0 else np.inf
    low, high = np.quantile(
        resampled[:, 0] / np.maximum(resampled[:, 1], 1e-9), [objectives.alpha, 1 - objectives.alpha]
    )
    text = (
        f"servers: {metric} mean {say_time(ours)} is {ratio:.2f} x the baseline's {say_time(theirs)}; "
        f"allowed {margin:g} x"
    )
    return Check(
        metric=metric, statistic="mean", kind="baseline", outcome=outcome, text=text, arm_value=float(ours),
        baseline_value=float(theirs), limit=margin, low=float(low), high=float(high),
    )  # fmt: skip


def _tails(
    parts: Sequence[tuple[Histogram, Histogram]], drawn: Floats, metric: str, objectives: Objectives
) -> Check:
    """Fails only. Every edge is a test of its own (Holm); the baseline gets the benefit of its buckets."""
    margin, floor = objectives.max_ratio[metric], objectives.floor_seconds.get(metric, 0.0)
    counts = np.array([[each.count for each in pair] for pair in parts])
    p_values, edges = [], []
    for edge in parts[0][0].edges[:-1]:
        reached = min(edge / margin, edge - floor)  # what the baseline takes where the canary may take `edge`
        if reached <= 0:
            continue
        longer = np.array([[beyond(mine, edge)[0], beyond(base, reached)[1]] for mine, base in parts])
        if not TAIL[0] <= (longer.sum(axis=0) / counts.sum(axis=0)).max() <= TAIL[1]:
            continue
        shares = (drawn @ longer) / (drawn @ counts)
        p_values.append(share(shares[:, 0] <= shares[:, 1]))
        edges.append(edge)
    over = [
        edge
        for edge, shown in zip(
            edges, holm(p_values, objectives.alpha / len(objectives.max_ratio)), strict=True
        )
        if shown
    ]
    text = f"servers: {metric}: no slower tail beyond {margin:g} x the baseline's"
    if over:
        text = (
            f"servers: more of the canary's {metric} is beyond {', '.join(map(say_time, over))} than "
            f"{margin:g} x the baseline's"
        )
    return Check(
        metric=metric, statistic="tail", kind="baseline", outcome="fail" if over else "pass", text=text,
        limit=margin,
    )  # fmt: skip


def drawn_spans(
    parts: Sequence[Histogram], random: np.random.Generator, others: Sequence[Histogram] = ()
) -> Floats:
    """How often each span is drawn, shape (draws, spans); blocks as long as the means' memory."""
    with np.errstate(divide="ignore", invalid="ignore"):
        series = np.log([part.total / part.count if part.count else np.nan for part in parts])
        if others:
            series = series - np.log([part.total / part.count if part.count else np.nan for part in others])
    counts = block_counts(len(parts), DRAWS, random, block_length(series))
    return counts.astype(np.float64)


def share(hits: Floats | np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    return float((1 + np.count_nonzero(hits)) / (1 + len(hits)))
