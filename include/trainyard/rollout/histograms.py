"""What a server's own `/metrics` say of a span of time: histograms as differences of two scrapes.

Prometheus' counters only grow while a server lives. One that shrank, or a new start time, means that it was
started anew: what it counted before is lost, what it says now happened since. A histogram bounds a quantile
by the edges of its bucket and knows nothing inside; its sum gives the mean exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainyard.bench import series
from trainyard.bench.metrics import Point
from trainyard.rollout.chance import Floats

MOST = 2.0**53  # of anything, beyond which one more is not seen: nobody counted that
ANSWERED_5XX = "answered 5xx"
NOT_THE_SERVERS_FAULT = ("validation", "template")  # of TGI's failures: the client asked for what cannot be


class NoHistogram(ValueError):
    """A scrape has no such series, or what it has cannot be a histogram."""


@dataclass(frozen=True)
class Histogram:
    """edges: upper, ascending, the last one infinite. counts: observations of each bucket, not added up.
    total: sum of all observations."""

    edges: tuple[float, ...]
    counts: Floats
    total: float

    @property
    def count(self) -> float:
        return float(self.counts.sum())

    @property
    def coherent(self) -> bool:
        """Whether the sum can be that of what the buckets hold, to one in a hundred: a scrape may come in the
        middle of an update."""
        least = float(self.counts[1:] @ np.array(self.edges[:-1])) if len(self.edges) > 1 else 0.0
        most = float(self.counts[:-1] @ np.array(self.edges[:-1])) if not self.counts[-1] else math.inf
        return self.total > 0 and 0.99 * least <= self.total <= 1.01 * most


@dataclass(frozen=True)
class Scrape:
    """One server at one moment. at: seconds on any clock that only grows. started: of its process, if known.

    finished: requests by reason (`stop`, `length`, `abort`, `error` …), as far as the server tells them, and
    the answers of status 5xx.
    """

    at: float
    histograms: Mapping[str, Histogram]
    finished: Mapping[str, float]
    started: float | None = None


@dataclass(frozen=True)
class Span:
    """What happened between two scrapes, of one server or of several together. restarts: servers lost."""

    histograms: Mapping[str, Histogram]
    finished: Mapping[str, float]
    restarts: int = 0


def read_scrape(points: Iterable[Point], at: float) -> Scrape:
    """Sums over all other labels (engines, served names). Series that are missing or broken are left out."""
    points = list(points)
    found = {}
    for metric, names in series.HISTOGRAMS.items():
        for name in names:
            try:
                found[metric] = _histogram(points, name)
                break
            except NoHistogram:
                continue
    started = [point.value for point in points if point.name == series.STARTED and math.isfinite(point.value)]
    return Scrape(at, found, _finished(points), max(started) if started else None)


def _finished(points: Sequence[Point]) -> dict[str, float]:
    """A series with labels begins with its first value: where its kind is counted at all, it is 0 before."""
    found: dict[str, float] = {}
    for point in points:
        if not 0 <= point.value < MOST:
            continue
        labels = dict(point.labels)
        if point.name == series.FINISHED:
            _add(found, labels.get("finished_reason", ""), point.value)
        elif point.name == series.ANSWERED and labels.get("handler") in series.GENERATING:
            _add(found, ANSWERED_5XX, point.value if labels.get("status", "").startswith("5") else 0.0)
        elif point.name == series.TGI_ASKED:
            _add(found, "error", 0.0)
        elif point.name == series.TGI_SUCCEEDED:
            _add(found, "stop", point.value)
        elif point.name == series.TGI_FAILED and labels.get("err") not in NOT_THE_SERVERS_FAULT:
            _add(found, "error", point.value)
    return found


def _add(found: dict[str, float], reason: str, count: float) -> None:
    found[reason] = found.get(reason, 0.0) + count


def _histogram(points: Sequence[Point], name: str) -> Histogram:
    """Raises NoHistogram."""
    upto: dict[float, float] = {}
    sums: list[float] = []  # of every engine, also one that is no number
    for point in points:
        if point.name == f"{name}_sum":
            sums.append(point.value)
        elif point.name == f"{name}_bucket":
            try:
                edge = float(dict(point.labels)["le"])
            except (KeyError, ValueError):
                edge = math.nan
            if math.isnan(edge):
                raise NoHistogram(f"{name} has a bucket without an edge")
            upto[edge] = upto.get(edge, 0.0) + point.value
    edges = tuple(sorted(upto))
    total = sum(sums) if sums else math.nan
    if not edges or edges[-1] != math.inf or not 0 <= total < MOST:
        raise NoHistogram(f"{name} is missing, or has no sum or no last bucket")
    if not all(0 <= count < MOST for count in upto.values()):
        raise NoHistogram(f"{name} has buckets that nobody counted")
    counts = np.diff(np.array([0.0, *(upto[edge] for edge in edges)]))
    if not (counts >= 0).all():
        raise NoHistogram(f"{name} has buckets that hold less than those below them")
    return Histogram(edges, counts, total)


def between(before: Scrape, after: Scrape) -> Span:
    """What one server did between two scrapes."""
    anew = before.started is not None and after.started is not None and after.started != before.started
    for metric in before.histograms.keys() & after.histograms.keys():
        old, new = before.histograms[metric], after.histograms[metric]
        anew = anew or old.edges != new.edges or bool((np.cumsum(new.counts) < np.cumsum(old.counts)).any())
    anew = anew or any(after.finished.get(reason, 0.0) < count for reason, count in before.finished.items())
    if anew:
        return Span(after.histograms, after.finished, restarts=1)
    histograms = {}
    for metric, new in after.histograms.items():
        if metric in before.histograms:
            old = before.histograms[metric]
            counts = new.counts - old.counts
            total = new.total - old.total
            if (counts >= 0).all() and total >= 0:  # else it was in the middle of an update, or is broken
                histograms[metric] = Histogram(new.edges, counts, total)
    finished = {reason: count - before.finished.get(reason, 0.0) for reason, count in after.finished.items()}
    return Span(histograms, finished)


def together(spans: Sequence[Span]) -> Span:
    """The servers of an arm at the same time, or the same ones one span after another.

    A metric that one of them lacks, or has with other buckets, is left out: a part would stand for the whole.
    """
    metrics = set.intersection(*(set(span.histograms) for span in spans)) if spans else set()
    histograms = {}
    for metric in sorted(metrics):
        whole = added([span.histograms[metric] for span in spans])
        if whole is not None:
            histograms[metric] = whole
    reasons = {reason for span in spans for reason in span.finished}
    finished = {
        reason: math.fsum(span.finished.get(reason, 0.0) for span in spans) for reason in sorted(reasons)
    }
    return Span(histograms, finished, sum(span.restarts for span in spans))


def added(parts: Sequence[Histogram]) -> Histogram | None:
    """None for histograms of other buckets: nobody knows what is in between."""
    if len({part.edges for part in parts}) != 1:
        return None
    counts = np.sum([part.counts for part in parts], axis=0)
    return Histogram(parts[0].edges, counts, math.fsum(part.total for part in parts))


def failed_and_ended(span: Span) -> tuple[int, int] | None:
    """How many requests failed at least, and those plus all that succeeded; None where nobody counts.

    vLLM has the reason `error` in 0.16 and not in 0.11, and counts answers of 5xx in both. A failed request
    may be in both counts, or in one: a stream that fails has status 200. Requests that clients gave up count
    neither way: nobody knows why they did.
    """
    if "error" not in span.finished and ANSWERED_5XX not in span.finished:
        return None
    failed = round(max(span.finished.get("error", 0.0), span.finished.get(ANSWERED_5XX, 0.0)))
    good = sum(
        count for reason, count in span.finished.items() if reason not in ("abort", "error", ANSWERED_5XX)
    )
    return failed, failed + round(good)


def quantile_bounds(histogram: Histogram, q: float) -> tuple[float, float]:
    """Lower and upper edge of the bucket that the nearest-rank quantile lies in; (0, inf) for no data."""
    if histogram.count <= 0:
        return 0.0, math.inf
    rank = math.ceil(q * histogram.count - 1e-9)
    at = int(np.searchsorted(np.cumsum(histogram.counts), max(rank, 1) - 1e-9))
    at = min(at, len(histogram.edges) - 1)
    return (histogram.edges[at - 1] if at else 0.0), histogram.edges[at]


def beyond(histogram: Histogram, seconds: float) -> tuple[float, float]:
    """At least and at most how many observations took longer than `seconds`."""
    above = np.array([*np.cumsum(histogram.counts[::-1])[::-1], 0.0])  # above[i]: in bucket i or later
    at = int(np.searchsorted(np.array(histogram.edges), seconds))  # the bucket that `seconds` lies in
    if at < len(histogram.edges) and histogram.edges[at] == seconds:
        return float(above[at + 1]), float(above[at + 1])
    return float(above[min(at + 1, len(above) - 1)]), float(above[min(at, len(above) - 1)])
