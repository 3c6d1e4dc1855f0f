"""What a load test asks, in words for its report."""

from __future__ import annotations

from trainyard.bench.arrivals import TRACE
from trainyard.bench.shapes import Lengths
from trainyard.bench.workload import Workload


def asked(workload: Workload, seed: int) -> dict[str, str]:
    """Rows for people: name and words."""
    facts = {"Loop": _loop(workload)}
    if (most := workload.most_requests(seed)) is not None:
        facts["Requests"] = f"at most {most} to each server"
    if workload.trace is not None and (trace := workload.read_trace()):
        facts["Trace"] = f"{workload.trace}, {len(trace.rows)} requests, SHA-256 {trace.digest[:12]}"
    facts["Prompt and answer"] = (
        f"{_length(workload.prompt_tokens, workload.prompt_lengths)} and "
        f"{_length(workload.output_tokens, workload.output_lengths)} tokens"
        + (", where the trace does not say" if workload.trace is not None else "")
    )
    if prefix := workload.prefix:
        facts["Shared prefixes"] = f"{prefix.groups} of {prefix.tokens} tokens"
    if talk := workload.conversation:
        facts["Conversations"] = f"{talk.turns} turns, {talk.think_seconds:g} s to think on average"
    if images := workload.images:
        facts["Pictures"] = f"{images.count} of {images.width} x {images.height} pixels"
    return facts


def _loop(workload: Workload) -> str:
    schedule = workload.schedule
    if schedule is None:
        return f"closed, {workload.concurrency} at once"
    if schedule.process == TRACE:
        return "open, at the moments of the trace"
    rates = schedule.expected / schedule.seconds
    return f"open, {schedule.process}, {rates:g} arrivals/s on average for {schedule.seconds:g} s"


def _length(tokens: int, drawn: Lengths | None) -> str:
    if drawn is None:
        return f"about {tokens}"
    return f"log-normal (median {drawn.median}, sigma {drawn.sigma:g}, {drawn.min} to {drawn.max})"
