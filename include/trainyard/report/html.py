"""One HTML file a release: nothing to load, nothing to run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainyard.report.document import Phase, Report, Stage, epoch
from trainyard.report.plots import ecdf, latencies_over_time, weight_steps
from trainyard.rollout.verdict import SEVERITY

TEMPLATE = "release.html.j2"
OUTCOME_WORDS = {"rolled_back": "rolled back", "infrastructure_fault": "infrastructure fault"}
PLOTTED = {"ttft": "Time to first token", "itl": "Inter-token time", "e2e": "End to end"}
LOG_LINES = 60


def render_html(report: Report) -> str:
    """The whole page. All text from outside is escaped; only plots are markup."""
    environment = Environment(
        loader=PackageLoader("trainyard.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "words": lambda text: OUTCOME_WORDS.get(text, text),
        "ms": say_ms,
        "duration": say_duration,
        "clock": say_clock,
        "safe_url": safe_url,
    }
    return environment.get_template(TEMPLATE).render(
        report=report,
        bars=bars(report.timeline),
        weights=weights_plot(report),
        phases=[phase_view(phase) for phase in report.phases],
        duration=seconds_between(report.started_at, report.finished_at),
        log=report.log[-LOG_LINES:],
        plotted=PLOTTED,
    )


def phase_view(phase: Phase) -> dict[str, Any]:
    """What the template shows of a phase."""
    arms: Mapping[str, Any] = phase.summary.get("arms") or {}
    checks = phase.verdict.checks if phase.verdict else ()
    limits = {
        check.metric: check.limit for check in checks if check.kind == "slo" and check.statistic == "p95"
    }
    plots = [
        (title, ecdf(metric, phase.samples, limit=limits.get(metric))) for metric, title in PLOTTED.items()
    ]
    plots.append(("Every request", latencies_over_time(phase.samples)))
    kinds = sorted({kind for figures in arms.values() for kind in figures.get("failures") or {}})
    return {
        "name": phase.name,
        "id": "phase-" + re.sub(r"[^a-z0-9]+", "-", phase.name.lower()),
        "verdict": phase.verdict,
        "checks": sorted(checks, key=lambda check: -SEVERITY.index(check.outcome)),
        "arms": arms,
        "failures": {
            kind: {arm: (figures.get("failures") or {}).get(kind, 0) for arm, figures in arms.items()}
            for kind in kinds
        },
        "generator": phase.summary.get("generator") or {},
        "split": phase.summary.get("split") or {},
        "plots": [(title, plot) for title, plot in plots if plot is not None],
    }


def bars(stages: tuple[Stage, ...]) -> list[dict[str, Any]]:
    """Left edge and width of every stage in percent of the whole run; stages that never began have no bar."""
    begins = [stage.begin for stage in stages if stage.begin is not None]
    ends = [end for stage in stages for end in (stage.end, stage.begin) if end is not None]
    start = min(begins, default=0.0)
    span = max(max(ends, default=0.0) - start, 0.001)
    rows = []
    for stage in stages:
        row: dict[str, Any] = {"stage": stage, "left": None, "width": None, "seconds": None}
        if stage.begin is not None:
            end = stage.end if stage.end is not None else start + span
            row["left"] = round(100 * (stage.begin - start) / span, 2)
            row["width"] = round(100 * max(0.0, end - stage.begin) / span, 2)
            row["seconds"] = end - stage.begin if stage.end is not None else None
        rows.append(row)
    return rows


def weights_plot(report: Report) -> Markup | None:
    points = [
        (at, float(weight.percent.get(report.canary, 0)))
        for weight in report.weights
        for at in [epoch(weight.at)]
        if at is not None
    ]
    end = epoch(report.finished_at) or max((at for at, _ in points), default=0.0)
    return weight_steps(sorted(points), end)


def seconds_between(begin: str | None, end: str | None) -> float | None:
    first, last = epoch(begin), epoch(end)
    return last - first if first is not None and last is not None else None


def say_ms(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f}" if milliseconds < 10 else f"{milliseconds:.0f}"


def say_duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def say_clock(text: str | None) -> str:
    at = epoch(text)
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at is not None else ""


def safe_url(url: str) -> str:
    """The address, or nothing if a click on it would run something."""
    return url if urlsplit(url.strip()).scheme in ("http", "https", "s3", "") else ""
