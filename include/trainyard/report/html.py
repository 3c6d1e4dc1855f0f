"""One HTML file a release: nothing to load, nothing to run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainyard.report.canvas import css_class
from trainyard.report.document import Report, Stage, epoch
from trainyard.report.figures import COLUMNS
from trainyard.report.phases import phase_view
from trainyard.report.timeline import weight_steps

TEMPLATE = "release.html.j2"
OUTCOME_WORDS = {"rolled_back": "rolled back", "infrastructure_fault": "infrastructure fault"}
LOG_LINES = 60
REASONS = 6


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
        "arm_class": css_class,
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
        columns=COLUMNS,
        reasons=why(report),
    )


def why(report: Report) -> list[tuple[str, str]]:
    """(phase, text) of what decided against, the first things to be read."""
    found = [
        (phase.name, text)
        for phase in report.phases
        if phase.verdict is not None
        for text in phase.verdict.reasons
    ]
    # The headline quotes the first of them already, as a rule.
    return [(name, text) for name, text in found if text not in report.reason][:REASONS]


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
