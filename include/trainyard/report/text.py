"""The report in a few lines, for a task's log and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainyard.report import figures
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
    if verdict:
        marks = [(MARKS[check.outcome], check.text) for check in verdict.checks if check.outcome != "pass"]
        lines += [f"      {mark} {text}" for mark, text in marks]
    for arm, own in (phase.summary.get("arms") or {}).items():
        lines.append(f"      {arm}: {_short(own)}")
        lines += [f"        {line}" for line in _economy(own)]
    return lines


def _short(own: Mapping[str, Any]) -> str:
    latencies = ", ".join(
        f"{metric} {own[metric]['p50'] * 1000:.3g}/{own[metric]['p95'] * 1000:.3g} ms"
        for metric in ("ttft", "itl", "e2e")
        if (own.get(metric) or {}).get("count")
    )
    return f"{own['requests']} requests, {own['failed']} failed" + (
        f"; p50/p95 {latencies}" if latencies else ""
    )


def render_summary(summary: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a load test's own log: all that `render_phase` leaves out, from counts to the generator."""
    arms: Mapping[str, Any] = summary.get("arms") or {}
    sent = figures.load(summary)
    if sent:
        yield f"load: {sent}"
    for arm, own in arms.items():
        yield f"{arm}: {', '.join(_counts(own))}"
        yield from (f"  {line}" for line in _economy(own))
    for price, names in figures.prices(summary).items():
        yield f"cost of {' and '.join(names)}: {price}"
    yield from _latencies(summary)
    if stopped := figures.stopped(summary):
        yield f"stopped by an alarm {stopped}"
    for arm, found in (summary.get("sweep") or {}).items():
        yield from _sweep(arm, found)
    generator: Mapping[str, Any] = summary.get("generator") or {}
    if generator:
        state = "valid" if generator.get("valid") else "INVALID"
        seen = ", ".join(f"{name[0].lower()}{name[1:]} {text}" for name, text in figures.health(summary))
        yield f"load generator: {state}" + (f"; {seen}" if seen else "")
        yield from (f"  {reason}" for reason in generator.get("reasons") or ())


def _counts(own: Mapping[str, Any]) -> Iterator[str]:
    kinds = ", ".join(f"{kind} {count}" for kind, count in (own.get("failures") or {}).items())
    yield f"{own['requests']} requests"
    yield f"{own['failed']} failed" + (f" ({kinds})" if kinds else "")
    yield f"{own.get('censored', 0)} cut off"
    for key, name in (
        ("requests_per_second", "requests/s"),
        ("input_tokens_per_second", "tokens/s in"),
        ("output_tokens_per_second", "tokens/s out"),
    ):
        if own.get(key) is not None:
            yield f"{figures.say_figure(own[key])} {name}"


def _economy(own: Mapping[str, Any]) -> Iterator[str]:
    good, cost = own.get("goodput") or {}, own.get("economy") or {}
    if good:
        share = "share unknown" if good.get("share") is None else f"{good['share']:.1%} of the requests"
        within = ", ".join(f"{name} {figures.say_limit(limit)}" for name, limit in good["limits"].items())
        rate = figures.say_figure(good["requests_per_second"])
        yield f"goodput {rate} requests/s, {share} (within {within})"
    if cost.get("output_tokens_per_second_per_core") is not None:
        told = f"{figures.say_figure(cost['output_tokens_per_second_per_core'])} tokens/s a NeuronCore"
        dollars = cost.get("dollars_per_million_output_tokens")
        if dollars is not None:
            told += f", ${figures.say_dollars(dollars)} a million output tokens"
        yield f"{told} ({cost['cores']} cores)"


def _latencies(summary: Mapping[str, Any]) -> Iterator[str]:
    """Milliseconds throughout: a column of one unit is easily read down."""
    arms: Mapping[str, Any] = summary.get("arms") or {}
    rows = [
        (metric, arm, own[metric])
        for latency in figures.latencies(summary)
        for metric in (latency.metric,)
        for arm, own in arms.items()
        if (own.get(metric) or {}).get("count")
    ]
    if not rows:
        return
    wide = max(len(f"{metric} {arm}") for metric, arm, _ in rows)
    yield f"{'ms':<{wide}}" + "".join(f"{column:>10}" for column in figures.COLUMNS)
    for metric, arm, own in rows:
        cells = (f"{own[column] * 1000:.2f}" if column in own else "–" for column in figures.COLUMNS)
        yield f"{f'{metric} {arm}':<{wide}}" + "".join(f"{cell:>10}" for cell in cells)


def _sweep(arm: str, found: Mapping[str, Any]) -> Iterator[str]:
    for step in found.get("steps") or ():
        first = "–" if step["ttft_p95"] is None else f"{step['ttft_p95'] * 1000:.0f} ms"
        mark = "+" if step["good"] else "-"
        yield f"{mark} {arm}: {step['offered']:g}/s offered, {step['served']:g}/s served, ttft p95 {first}"
    if top := found.get("knee"):
        yield f"{arm}: knee {top['offered']:g} requests/s"
    else:
        low = "below the first rate" if found.get("steps") else "unknown: not one rate was asked in full"
        yield f"{arm}: knee {low}"
