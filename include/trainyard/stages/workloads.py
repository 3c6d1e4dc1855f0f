"""From a release's spec to what its load test sends."""

from __future__ import annotations

from typing import Any

from trainyard.load_spec import Arrivals, Load


def workload_of(load: Load, seconds: float, *, step: bool = False) -> dict[str, Any]:
    """The document of `bench.workload.Workload` for a run of so many seconds.

    step: live users are served beside it. Stages that climb to where a server breaks are for the load test
    before any traffic; in a step the rate is that of the first stage's end.
    """
    document: dict[str, Any] = {
        "concurrency": load.concurrency,
        "duration_seconds": seconds,
        "prompt_tokens": load.prompt_tokens,
        "output_tokens": load.output_tokens,
        "max_loop_lag_seconds": load.max_lag_seconds,
    }
    parts = {
        "prompt_lengths": load.workload.prompt,
        "output_lengths": load.workload.output,
        "prefix": load.prefix,
        "conversation": load.conversation,
        "images": load.images,
    }
    document |= {name: part.model_dump() for name, part in parts.items() if part is not None}
    if load.workload.trace is not None:
        document["trace"] = load.workload.trace
    if load.arrivals is not None:
        document["arrivals"] = _arrivals_of(load.arrivals, step=step)
    return document


def _arrivals_of(arrivals: Arrivals, *, step: bool) -> dict[str, Any]:
    if arrivals.process == "trace":
        return {"process": "trace", "speed": arrivals.speed}
    how: dict[str, Any] = {"process": arrivals.process, "shape": arrivals.shape}
    if not arrivals.stages:
        return how | {"rate": arrivals.rate}
    if step:
        return how | {"rate": _first_rate(arrivals)}
    stages = [
        {"seconds": stage.seconds, "rate": stage.rate, "to": stage.ends_at} for stage in arrivals.stages
    ]
    return how | {"stages": stages}


def _first_rate(arrivals: Arrivals) -> float:
    first = arrivals.stages[0]
    return first.ends_at or first.rate


def run_seconds(load: Load, seconds: float, *, step: bool = False) -> float:
    """How long requests are sent: `seconds`, but where stages say it themselves."""
    if load.arrivals is None or not load.arrivals.stages or step:
        return seconds
    return sum(stage.seconds for stage in load.arrivals.stages)


def expected_requests(load: Load, seconds: float, *, step: bool = False) -> float | None:
    """How many an arm gets in a run, on average; None: the servers (closed loop) or a trace decide."""
    arrivals = load.arrivals
    if arrivals is None or arrivals.process == "trace":
        return None
    if arrivals.stages and not step:
        begun = sum(stage.seconds * (stage.rate + stage.ends_at) / 2 for stage in arrivals.stages)
    else:
        begun = seconds * (arrivals.rate or _first_rate(arrivals))
    return begun * load.turns
