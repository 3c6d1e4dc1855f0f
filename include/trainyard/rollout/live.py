"""Judging by the servers' own histograms. Spans in, checks out.

Alone (real traffic, no synthetic load), everything has to be shown:

- An SLO passes where the bucket of p95 lies within the limit, and fails where that bucket's lower edge is
  beyond it for the whole interval. A limit inside the bucket decides nothing: set it to an edge.
- Means are known exactly: the canary's has to be shown to be within the margin of the baseline's (the upper
  end of a bootstrap over spans), and may raise the alarm at any time (`evidence.body` over spans).
- A tail fails where more of the canary's requests are beyond an edge than of the baseline's could be beyond
  that edge divided by the margin, whatever the buckets hide.
- Gaps, restarts and series that are missing on one arm are inconclusive. What neither arm's servers tell is
  not judged, and named; without any latency nothing passes.

Beside a load test, whose samples prove more than buckets can, only what speaks against the canary counts. Its
arms are not compared: our own requests are a different share of what each of them serves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainyard.bench.metrics import parse_metrics
from trainyard.rollout import evidence
from trainyard.rollout.chance import binomial_at_least, fisher_more
from trainyard.rollout.histograms import (
    Scrape,
    Span,
    between,
    beyond,
    failed_and_ended,
    quantile_bounds,
    read_scrape,
    together,
)
from trainyard.rollout.live_arms import (
    FEWEST_SPANS,
    alarm,
    compared,
    drawn_spans,
    gap,
    grouped,
    needed,
    share,
)
from trainyard.rollout.verdict import COMPARED, Check, Objectives, Outcome, say_time

Row = Mapping[str, Any]
Server = tuple[str, str]  # arm, address
UNTOLD = 0.1  # of the time that servers may be silent at its begin or end; between counters go on


@dataclass(frozen=True)
class Live:
    """Spans of both arms, those of the same time at the same place. baseline: empty where there is none.

    synthetic: the servers answered our own load test as well. covered: share of the recorded time that the
    spans tell of, 1 or less; of several parts the least. gone: servers of the canary that stopped answering.
    """

    canary: Sequence[Span]
    baseline: Sequence[Span] = ()
    synthetic: bool = False
    covered: float = 1.0
    gone: int = 0


class Spans:
    """Rows of scrapes, moment by moment, as spans of both arms.

    A moment without every server of both arms is no moment: the next one ends the span, and nothing is lost.
    """

    def __init__(self, servers: Collection[Server]) -> None:
        self._servers = sorted(servers)
        self._last: dict[Server, Scrape] | None = None
        self._spans: dict[str, list[Span]] = {arm: [] for arm, _ in self._servers}
        self._synthetic = False
        self._moments: list[float] = []  # all of them, and those of the spans' ends
        self._whole: list[float] = []
        self._answered: dict[Server, float] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """All rows of one moment. What cannot be read is left out."""
        found: dict[Server, Scrape] = {}
        for row in rows:
            self._synthetic = self._synthetic or bool(row.get("synthetic"))
            self._moments = [*self._moments[:1], float(row["at"])]
            try:
                scrape = read_scrape(parse_metrics(row["text"]), float(row["at"]))
            except (KeyError, ValueError):
                continue
            found[row["arm"], row["server"]] = scrape
        self._answered |= {server: scrape.at for server, scrape in found.items()}
        if len(found) < len(self._servers):
            return
        self._whole = [*self._whole[:1], self._moments[-1]]
        before, self._last = self._last, found
        if before is not None:
            for arm, spans in self._spans.items():
                own = [server for server in self._servers if server[0] == arm]
                spans.append(together([between(before[server], found[server]) for server in own]))

    @property
    def live(self) -> Live:
        time = _length(self._moments)
        gone = sum(
            arm == "canary" and self._moments[-1] - last > UNTOLD * time
            for (arm, _), last in self._answered.items()
        )
        covered = _length(self._whole) / time if time else 1.0
        return Live(
            self._spans.get("canary", []), self._spans.get("baseline", []), self._synthetic, covered, gone
        )


def _length(moments: Sequence[float]) -> float:
    return moments[-1] - moments[0] if moments else 0.0


def live_of(rows: Iterable[Row]) -> Live:
    """Scrapes as they were recorded: `{"at": seconds, "arm", "server", "text": of /metrics}`; a row without
    `text` says that nothing could be read."""
    moments: dict[float, list[Row]] = {}
    for row in rows:
        moments.setdefault(float(row["at"]), []).append(row)
    spans = Spans({(row["arm"], row["server"]) for moment in moments.values() for row in moment})
    for _, moment in sorted(moments.items()):
        spans.add(moment)
    return spans.live


def joined(parts: Sequence[Live]) -> Live:
    """A phase from its parts. One without an arm that another part has is left out: its spans have no
    counterpart."""
    two_arms = any(part.baseline for part in parts)
    whole = [part for part in parts if len(part.canary) == len(part.baseline) or not two_arms]
    return Live(
        [span for part in whole for span in part.canary],
        [span for part in whole for span in part.baseline],
        any(part.synthetic for part in parts),
        min((part.covered for part in parts), default=1.0),
        sum(part.gone for part in parts),
    )


def check_live(
    live: Live, objectives: Objectives, *, baseline_expected: bool, beside: bool = False, seed: int = 0
) -> list[Check]:
    """What the judge says of the servers' own figures. beside: there are samples of a load test too."""
    random = np.random.default_rng(seed)
    if beside:
        return _check_beside(live, objectives, random)
    if live.synthetic:  # which of it was users' nobody can tell
        text = "the servers answered a load test of ours, whose samples are not there"
        return [gap("servers", text), *_check_beside(live, objectives, random)]
    if not live.canary:
        return [gap("servers", "the canary's servers were not scraped")]
    ours, theirs = together(live.canary), together(live.baseline) if live.baseline else None
    checks = _restarts(ours, live.gone)
    if live.covered < 1 - UNTOLD:
        text = f"all servers together were heard for {live.covered:.0%} of the time"
        checks.append(gap("servers", text))
    if theirs is None and baseline_expected:
        checks.append(gap("servers", "the baseline's servers were not scraped, though a release serves"))
    told = told_by(live) if theirs is not None else frozenset(COMPARED)
    checks += _errors(ours, theirs, objectives) + _slos(live, ours, objectives, told, random)
    if theirs is not None:
        for metric in COMPARED:
            if metric in objectives.max_ratio and metric in told:
                checks += compared(live.canary, live.baseline, metric, objectives, random)
    untold = [metric for metric in COMPARED if metric not in told]
    if len(untold) == len(COMPARED):
        checks.append(gap("servers", "the servers tell no latency at all"))
    elif untold:
        checks.append(_note(f"servers: {', '.join(untold)} is not judged, neither arm's servers tell it"))
    return checks


def told_by(live: Live) -> frozenset[str]:
    """The metrics that any server of either arm ever told: the others are none of this engine's."""
    return frozenset(metric for span in (*live.canary, *live.baseline) for metric in span.histograms)


def alarms(live: Live, objectives: Objectives) -> list[str]:
    """What is wrong for sure by now; may be asked after every span. See `watch` for why that is allowed.

    All bets together share one alpha: means a metric, and failures.
    """
    if live.synthetic or not live.canary or not live.baseline:
        return []
    found = []
    for metric in COMPARED:
        if metric in objectives.max_ratio:
            parts = grouped(live.canary, live.baseline, metric)
            if len(parts) >= FEWEST_SPANS and alarm(parts, metric, objectives):
                found.append(f"{metric} (mean)")
    counts = [failed_and_ended(span) for span in live.canary]
    if counts and all(count is not None for count in counts):
        rows = [count for count in counts if count is not None]
        worth = evidence.failures(
            np.array([failed for failed, _ in rows], dtype=np.float64),
            np.array([ended for _, ended in rows], dtype=np.float64),
            objectives.max_error_rate,
        )
        errors = _errors(together(live.canary), together(live.baseline), objectives)
        if worth.max() >= needed(objectives) and errors[0].outcome == "fail":
            found.append("errors")
    return found


def _check_beside(live: Live, objectives: Objectives, random: np.random.Generator) -> list[Check]:
    ours, theirs = together(live.canary), together(live.baseline) if live.baseline else None
    told = told_by(live)
    if not told and failed_and_ended(ours) is None:
        return [_note("servers: they told nothing of themselves; the samples are judged alone")]
    found = [*_errors(ours, theirs, objectives), *_slos(live, ours, objectives, told, random)]
    against = [check for check in found if check.outcome in ("fail", "infrastructure_fault")]
    return [*_restarts(ours, live.gone), *against] or [
        _note(f"servers: nothing against the canary in {len(live.canary)} spans of their own figures")
    ]


def _restarts(ours: Span, gone: int) -> list[Check]:
    """gone: a pod that was replaced has another address, so that nobody sees it start."""
    found = [gap("servers", f"{ours.restarts} server(s) of the canary started anew")] * bool(ours.restarts)
    return found + [gap("servers", f"{gone} server(s) of the canary did not answer any more")] * bool(gone)


def _note(text: str) -> Check:
    return Check(metric="servers", statistic="count", kind="samples", outcome="pass", text=text)


def _errors(ours: Span, theirs: Span | None, objectives: Objectives) -> list[Check]:
    counted = failed_and_ended(ours)
    if counted is None:
        return [gap("errors", "the canary's servers do not count failed requests", "rate")]
    failed, ended = counted
    if ended < objectives.min_samples:
        return [gap("errors", f"{ended} requests of the canary ended; {objectives.min_samples} are needed")]
    allowed, rate = objectives.max_error_rate, failed / ended
    over = binomial_at_least(failed, ended, allowed) < objectives.alpha
    text = f"servers: {failed} of {ended} requests failed ({rate:.1%}; allowed {allowed:.1%})"
    outcome: Outcome = "pass"
    if rate > allowed:
        outcome = "fail" if over else "inconclusive"
        base = failed_and_ended(theirs) if theirs is not None else None
        if base is not None:
            text += f", the baseline's {base[0]} of {base[1]}"
            broken = binomial_at_least(*base, allowed) < objectives.alpha
            if over and broken and fisher_more(failed, ended, *base) >= objectives.alpha:
                outcome, text = "infrastructure_fault", f"{text}: both fail alike"
    return [
        Check(metric="errors", statistic="rate", kind="errors", outcome=outcome, text=text, arm_value=rate,
              limit=allowed)
    ]  # fmt: skip


def _slos(
    live: Live, ours: Span, objectives: Objectives, told: frozenset[str], random: np.random.Generator
) -> list[Check]:
    limits = {
        "ttft": objectives.ttft_p95_seconds,
        "itl": objectives.itl_p95_seconds,
        "e2e": objectives.e2e_p95_seconds,
    }
    checks = []
    for metric, limit in limits.items():
        if limit is None or metric not in told:
            continue
        histogram = ours.histograms.get(metric)
        if histogram is None or histogram.count < objectives.min_samples:
            seen = "no" if histogram is None else f"{histogram.count:.0f}"
            checks.append(gap(metric, f"servers: {seen} figures of {metric} of the canary", "p95"))
            continue
        low, high = quantile_bounds(histogram, 0.95)
        least = beyond(histogram, limit)[0]
        parts = [span.histograms[metric] for span in live.canary]
        drawn = drawn_spans(parts, random)
        longer = drawn @ np.array([beyond(part, limit)[0] for part in parts])
        counted = drawn @ np.array([part.count for part in parts])
        shown = len(parts) >= FEWEST_SPANS and share(longer <= 0.05 * counted) <= objectives.alpha
        outcome: Outcome = "pass" if high <= limit else "inconclusive"
        text = f"servers: {metric} p95 between {say_time(low)} and {_edge(high)} (allowed {say_time(limit)})"
        if shown and least > 0.05 * histogram.count:
            outcome = "fail"
        checks.append(
            Check(metric=metric, statistic="p95", kind="slo", outcome=outcome, text=text, arm_value=None,
                  limit=limit, low=low, high=high if np.isfinite(high) else None)
        )  # fmt: skip
    return checks


def _edge(seconds: float) -> str:
    return say_time(seconds) if np.isfinite(seconds) else "infinity"
