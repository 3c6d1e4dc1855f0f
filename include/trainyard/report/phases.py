"""What the page shows of one phase: its verdict, figures, plots, failures and load generator."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from trainyard.bench.samples import Sample
from trainyard.report import curves, figures
from trainyard.report.climbs import climb, served
from trainyard.report.document import Phase
from trainyard.report.plots import METRICS, challenger, ecdf, over_baseline, tail
from trainyard.report.timeline import over_time
from trainyard.rollout.verdict import SEVERITY

EXAMPLE = 160  # characters of what a server said


@dataclass(frozen=True)
class Group:
    """Plots that belong together. key: names of their lines. plots: (title, what goes up, drawing)."""

    title: str
    key: tuple[str, ...]
    plots: tuple[tuple[str, str, Markup], ...]
    marks: bool = False
    note: str = ""


def phase_view(phase: Phase) -> dict[str, Any]:
    """By name, for the template."""
    arms: Mapping[str, Any] = phase.summary.get("arms") or {}
    checks = phase.verdict.checks if phase.verdict else ()
    return {
        "name": phase.name,
        "id": "phase-" + re.sub(r"[^a-z0-9]+", "-", phase.name.lower()),
        "verdict": phase.verdict,
        "checks": sorted(checks, key=lambda check: -SEVERITY.index(check.outcome)),
        "arms": arms,
        "load": figures.load(phase.summary),
        "latencies": figures.latencies(phase.summary),
        "rates": figures.rates(phase.summary),
        "limits": figures.limits(phase.summary),
        "prices": figures.prices(phase.summary),
        "stopped": figures.stopped(phase.summary, why=phase.verdict is None),  # a verdict says it itself
        "groups": groups(phase),
        "failures": failures(arms, phase.samples),
        "generator": phase.summary.get("generator") or {},
        "health": figures.health(phase.summary),
    }


def groups(phase: Phase) -> list[Group]:
    """Those that there is something to draw of."""
    samples, names = phase.samples, tuple(phase.summary.get("arms") or ("canary", "baseline"))
    checks = phase.verdict.checks if phase.verdict else ()
    slos = {check.metric: check.limit for check in checks if check.kind == "slo" and check.statistic == "p95"}
    margins = [check.limit for check in checks if check.kind == "baseline" and check.limit]
    values = {metric: curves.sorted_values(samples, metric) for metric in METRICS}
    distributions = [
        (figures.TITLES[metric], more, draw(metric, values[metric], limit=slos.get(metric)))
        for metric in METRICS
        for draw, more in ((ecdf, "share that fast"), (tail, "share slower, logarithmic"))
    ]
    over = challenger(names) or "canary"
    ratio = over_baseline(values, allowed=max(margins, default=None))
    times = [
        (title, "from when it was due", over_time(metric, samples))
        for metric, title in (("ttft", "Time to first token"), ("e2e", "End to end"))
    ]
    return [
        group
        for group in (
            _group("Distributions", names, distributions),
            _group(
                f"{over[:1].upper()}{over[1:]} over baseline",
                METRICS,
                [("Ratio by percentile", "1 is equal", ratio)],
            ),
            _group("Over the run", names, times, marks=True, note=_thinned(phase)),
            _sweep(phase.summary.get("sweep") or {}),
        )
        if group is not None
    ]


def _group(
    title: str,
    key: Iterable[str],
    plots: Iterable[tuple[str, str, Markup | None]],
    *,
    marks: bool = False,
    note: str = "",
) -> Group | None:
    drawn = tuple((name, more, plot) for name, more, plot in plots if plot is not None)
    return Group(title, tuple(key), drawn, marks, note) if drawn else None


def _sweep(sweep: Mapping[str, Any]) -> Group | None:
    steps = {arm: found.get("steps") or [] for arm, found in sweep.items()}
    tops = {arm: found["knee"]["offered"] for arm, found in sweep.items() if found.get("knee")}
    limit = next((found["limit"] for found in sweep.values() if found.get("limit")), None)
    told = "; ".join(f"{arm}: {_kept(own, tops.get(arm))}" for arm, own in steps.items())
    return _group(
        "Sweep to the knee",
        steps,
        [
            ("Served", "requests/s; the straight line: all of them", served(steps, tops)),
            ("p95 of time to first token", "logarithmic", climb(steps, tops, limit)),
        ],
        note=f"{told}. A rate is kept if 95 % succeed and are served in its time, within the limit.",
    )


def _kept(steps: Sequence[object], top: float | None) -> str:
    if top is not None:
        return f"keeps up until {top:g} requests/s"
    return "does not keep up at all" if steps else "was not asked one rate in full"


def failures(arms: Mapping[str, Any], samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """A row a kind: how many, an arm, and what the server said the first time."""
    kinds = sorted({kind for own in arms.values() for kind in own.get("failures") or {}})
    examples: dict[str, str] = {}
    for sample in samples:
        if sample.error in kinds and sample.detail:
            examples.setdefault(sample.error, sample.detail[:EXAMPLE])
    return [
        {
            "kind": kind,
            "words": figures.KINDS.get(kind, ""),
            "counts": {arm: (own.get("failures") or {}).get(kind, 0) for arm, own in arms.items()},
            "example": examples.get(kind, ""),
        }
        for kind in kinds
    ]


def _thinned(phase: Phase) -> str:
    arms: Mapping[str, Any] = phase.summary.get("arms") or {}
    asked = sum(own.get("requests") or 0 for own in arms.values())
    if 0 < len(phase.samples) < asked:
        return f"Plots are drawn from {len(phase.samples):,} of {asked:,} requests; the figures are of all."
    return ""
