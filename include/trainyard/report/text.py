"""The report in a few lines, for a task's log and the terminal."""

from __future__ import annotations

from trainyard.report.document import Phase, Report
from trainyard.report.html import OUTCOME_WORDS, say_duration, seconds_between

MARKS = {"pass": "+", "fail": "-", "inconclusive": "?", "infrastructure_fault": "!"}


def render_text(report: Report) -> str:
    """No colours, no trailing line end."""
    outcome = OUTCOME_WORDS.get(report.outcome, report.outcome)
    took = say_duration(seconds_between(report.started_at, report.finished_at))
    lines = [f"{report.release}: {outcome}" + (f" after {took}" if took else "")]
    if report.reason:
        lines.append(f"  {report.reason}")
    for phase in report.phases:
        lines += render_phase(phase)
    lines += [f"  {name}: {url}" for name, url in report.links.items()]
    return "\n".join(lines)


def render_phase(phase: Phase) -> list[str]:
    """A phase's verdict, what every arm did, and the checks that did not pass."""
    verdict = phase.verdict
    outcome = OUTCOME_WORDS.get(verdict.outcome, verdict.outcome) if verdict else "not judged"
    lines = [f"  [{MARKS.get(verdict.outcome, '?') if verdict else '?'}] {phase.name}: {outcome}"]
    for arm, figures in (phase.summary.get("arms") or {}).items():
        latencies = ", ".join(
            f"{metric} {figures[metric]['p50'] * 1000:.3g}/{figures[metric]['p95'] * 1000:.3g} ms"
            for metric in ("ttft", "itl", "e2e")
            if (figures.get(metric) or {}).get("count")
        )
        counts = f"{figures['requests']} requests, {figures['failed']} failed"
        lines.append(f"      {arm}: {counts}" + (f"; p50/p95 {latencies}" if latencies else ""))
    if verdict:
        marks = [(MARKS[check.outcome], check.text) for check in verdict.checks if check.outcome != "pass"]
        lines += [f"      {mark} {text}" for mark, text in marks]
    return lines
