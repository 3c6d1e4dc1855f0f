"""Judging by the servers' own histograms: real traffic, no synthetic load. Spans in, checks out.

- An SLO passes where the bucket of p95 lies within the limit, and fails where that bucket's lower edge is
  beyond it for the whole interval. A limit inside the bucket decides nothing: set it to an edge.
- Means are known exactly: the canary's has to be shown to be within the margin of the baseline's (the upper
  end of a bootstrap over spans), and may raise the alarm at any time (`evidence.body` over spans).
- A tail fails where more of the canary's requests are beyond an edge than of the baseline's could be beyond
  that edge divided by the margin, whatever the buckets hide.
- Gaps, restarts and series that are missing are inconclusive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainyard.bench.metrics import parse_metrics
from trainyard.rollout import evidence
from trainyard.rollout.chance import Floats, binomial_at_least, block_counts, block_length, fisher_more, holm
from trainyard.rollout.histograms import (
    Histogram,
    Scrape,
    Span,
    beyond,
    quantile_bounds,
    read_scrape,
    spans_of,
    together,
)
from trainyard.rollout.verdict import COMPARED, Check, Objectives, Outcome, say_time

DRAWS = 1000
FEWEST_SPANS = 10  # of which both arms say something; below, a bootstrap over spans means nothing
FEWEST_IN_SPAN = 3  # observations; a mean of fewer is mostly chance
TAIL = (0.005, 0.2)  # an edge beyond which less or more of either arm is tells nothing of a tail


@dataclass(frozen=True)
class Live:
    """Spans of both arms, those of the same time at the same place. baseline: empty where there is none."""

    canary: Sequence[Span]
    baseline: Sequence[Span] = ()


def live_of(rows: Iterable[Mapping[str, Any]]) -> Live:
    """Scrapes as they were recorded: `{"at": seconds, "arm", "server", "text": of /metrics}`.

    What cannot be read is left out: a moment without every server of both arms is no moment.
    """
    servers: dict[str, dict[str, list[Scrape]]] = {}
    for row in rows:
        try:
            scrape = read_scrape(parse_metrics(row["text"]), float(row["at"]))
        except ValueError:
            continue
        servers.setdefault(row["arm"], {}).setdefault(row["server"], []).append(scrape)
    everyone = [own for arm in servers.values() for own in arm.values()]
    shared = set.intersection(*({scrape.at for scrape in own} for own in everyone)) if everyone else set()
    spans = {
        arm: spans_of({name: [each for each in own if each.at in shared] for name, own in found.items()})
        for arm, found in servers.items()
    }
    return Live(spans.get("canary", []), spans.get("baseline", []))


def check_live(live: Live, objectives: Objectives, *, baseline_expected: bool, seed: int = 0) -> list[Check]:
    """What the judge says of the servers' own figures."""
    random = np.random.default_rng(seed)
    if not live.canary:
        return [_gap("servers", "the canary's servers were not scraped")]
    ours, theirs = together(live.canary), together(live.baseline) if live.baseline else None
    checks = [_gap("servers", f"{ours.restarts} server(s) of the canary started anew")] * bool(ours.restarts)
    if theirs is None and baseline_expected:
        checks.append(_gap("servers", "the baseline's servers were not scraped, though a release serves"))
    checks += _errors(ours, theirs, objectives) + _slos(live, ours, objectives, random)
    if theirs is not None:
        for metric in COMPARED:
            if metric in objectives.max_ratio:
                checks += _compared(live, ours, theirs, metric, objectives, random)
    return checks


def _gap(metric: str, text: str, statistic: str = "count") -> Check:
    return Check(metric=metric, statistic=statistic, kind="samples", outcome="inconclusive", text=text)


def _errors(ours: Span, theirs: Span | None, objectives: Objectives) -> list[Check]:
    """A request that its client gave up counts for nothing: nobody knows why."""
    if "error" not in ours.finished:
        return [_gap("errors", "the canary's servers do not count failed requests", "rate")]
    failed, ended = _ended(ours)
    if ended < objectives.min_samples:
        return [_gap("errors", f"{ended} requests of the canary ended; {objectives.min_samples} are needed")]
    allowed, rate = objectives.max_error_rate, failed / ended
    over = binomial_at_least(failed, ended, allowed) < objectives.alpha
    text = f"servers: {failed} of {ended} requests failed ({rate:.1%}; allowed {allowed:.1%})"
    outcome: Outcome = "pass"
    if rate > allowed:
        outcome = "fail" if over else "inconclusive"
        alike = theirs is not None and fisher_more(failed, ended, *_ended(theirs)) >= objectives.alpha
        if over and theirs is not None and _ended(theirs)[1] and alike:
            outcome, text = "infrastructure_fault", f"{text}: the baseline fails alike"
    return [
        Check(metric="errors", statistic="rate", kind="errors", outcome=outcome, text=text, arm_value=rate,
              limit=allowed)
    ]  # fmt: skip


def _ended(span: Span) -> tuple[int, int]:
    """Failed, and all that ended by themselves."""
    failed = round(span.finished.get("error", 0.0))
    ended = sum(count for reason, count in span.finished.items() if reason not in ("abort", "error"))
    return failed, failed + round(ended)


def _slos(live: Live, ours: Span, objectives: Objectives, random: np.random.Generator) -> list[Check]:
    limits = {
        "ttft": objectives.ttft_p95_seconds,
        "itl": objectives.itl_p95_seconds,
        "e2e": objectives.e2e_p95_seconds,
    }
    checks = []
    for metric, limit in limits.items():
        if limit is None:
            continue
        histogram = ours.histograms.get(metric)
        if histogram is None or histogram.count < objectives.min_samples:
            seen = "no" if histogram is None else f"{histogram.count:.0f}"
            checks.append(_gap(metric, f"servers: {seen} figures of {metric} of the canary", "p95"))
            continue
        low, high = quantile_bounds(histogram, 0.95)
        least = beyond(histogram, limit)[0]
        parts = [span.histograms[metric] for span in live.canary]
        drawn = _drawn(parts, random)
        longer = drawn @ np.array([beyond(part, limit)[0] for part in parts])
        counted = drawn @ np.array([part.count for part in parts])
        shown = len(parts) >= FEWEST_SPANS and _share(longer <= 0.05 * counted) <= objectives.alpha
        outcome: Outcome = "pass" if high <= limit else "inconclusive"
        text = f"servers: {metric} p95 between {say_time(low)} and {_edge(high)} (allowed {say_time(limit)})"
        if shown and least > 0.05 * histogram.count:
            outcome = "fail"
        checks.append(
            Check(metric=metric, statistic="p95", kind="slo", outcome=outcome, text=text, arm_value=None,
                  limit=limit, low=low, high=high if np.isfinite(high) else None)
        )  # fmt: skip
    return checks


def _compared(
    live: Live, ours: Span, theirs: Span, metric: str, objectives: Objectives, random: np.random.Generator
) -> list[Check]:
    mine, base = ours.histograms.get(metric), theirs.histograms.get(metric)
    if mine is None or base is None:
        who = "canary" if mine is None else "baseline"
        return [_gap(metric, f"servers: {metric} is missing on the {who}", "mean")]
    if min(mine.count, base.count) < objectives.min_samples:
        text = f"servers: {mine.count:.0f} and {base.count:.0f} figures of {metric}"
        return [_gap(metric, f"{text}; {objectives.min_samples} are needed of each", "mean")]
    parts = [
        (span.histograms[metric], other.histograms[metric])
        for span, other in zip(live.canary, live.baseline, strict=False)
        if min(span.histograms[metric].count, other.histograms[metric].count) >= FEWEST_IN_SPAN
    ]
    if len(parts) < FEWEST_SPANS:
        text = f"servers: {len(parts)} spans with {metric} of both arms; {FEWEST_SPANS} are needed"
        return [_gap(metric, text, "mean")]
    drawn = _drawn([part for part, _ in parts], random, [other for _, other in parts])
    return [
        _means(parts, drawn, metric, objectives),
        _tails(parts, drawn, metric, objectives),
    ]


def _means(
    parts: Sequence[tuple[Histogram, Histogram]], drawn: Floats, metric: str, objectives: Objectives
) -> Check:
    margin, floor = objectives.max_ratio[metric], objectives.floor_seconds.get(metric, 0.0)
    totals = np.array([[each.total for each in pair] for pair in parts])
    counts = np.array([[each.count for each in pair] for pair in parts])
    ours, theirs = totals.sum(axis=0) / counts.sum(axis=0)
    resampled = (drawn @ totals) / (drawn @ counts)
    allowed = np.maximum(resampled[:, 1] * margin, resampled[:, 1] + floor)
    means = np.maximum(totals / counts, 1e-9)
    limits = np.maximum(means[:, 1] * margin, means[:, 1] + floor)
    alarm = evidence.body(np.log(means[:, 0]) - np.log(limits)).max() >= np.log(
        len(objectives.max_ratio) / (1 - objectives.confidence)
    )
    shown_over = _share(resampled[:, 0] <= allowed) <= objectives.alpha / len(objectives.max_ratio)
    shown_within = _share(resampled[:, 0] > allowed) <= objectives.beta
    outcome: Outcome = "fail" if alarm or shown_over else "pass" if shown_within else "inconclusive"
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
        p_values.append(_share(shares[:, 0] <= shares[:, 1]))
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


def _drawn(
    parts: Sequence[Histogram], random: np.random.Generator, others: Sequence[Histogram] = ()
) -> Floats:
    """How often each span is drawn, shape (draws, spans); blocks as long as the means' memory."""
    with np.errstate(divide="ignore", invalid="ignore"):
        series = np.log([part.total / part.count if part.count else np.nan for part in parts])
        if others:
            series = series - np.log([part.total / part.count if part.count else np.nan for part in others])
    counts = block_counts(len(parts), DRAWS, random, block_length(series))
    return counts.astype(np.float64)


def _share(hits: Floats | np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    return float((1 + np.count_nonzero(hits)) / (1 + len(hits)))


def _edge(seconds: float) -> str:
    return say_time(seconds) if np.isfinite(seconds) else "infinity"
