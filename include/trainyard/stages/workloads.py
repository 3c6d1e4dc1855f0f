"""From a release's spec to what its load test sends."""

from __future__ import annotations

from typing import Any

from trainyard.bench.stored_trace import stored_trace
from trainyard.bench.trace import Trace
from trainyard.bench.workload import MOST_REQUESTS
from trainyard.errors import Problem, Refused
from trainyard.load_spec import Arrivals, Load
from trainyard.neuron.size_rules import TEMPLATE_TOKENS
from trainyard.spec import Spec
from trainyard.store.objects import Objects


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
        "processes": load.processes,
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


def problems_of_load(objects: Objects, spec: Spec) -> list[Problem]:
    """What can be known before anything is spent: is the trace there and in order, do its requests fit, will
    an open loop ever send enough to be judged? Raises StoreUnavailable."""
    load, trace = spec.rollout.load, None
    if load.workload.trace is not None:
        try:
            trace = stored_trace(objects, load.workload.trace)
        except Refused as error:
            return error.problems
    problems = _problems_of_trace(trace, spec) if trace else []
    runs = {"rollout.load": (load.seconds, False)} | {
        f"rollout.steps[{number}]": (step.observe_seconds, True)
        for number, step in enumerate(spec.rollout.steps)
        if step.synthetic
    }
    wanted, parts = spec.rollout.objectives.min_samples, spec.rollout.extensions + 1
    for where, (seconds, step) in runs.items():
        sent = expected_requests(load, seconds, trace, step=step)
        if sent is not None and sent > MOST_REQUESTS:
            rule = f"more than {MOST_REQUESTS} requests are asked for"
            problems.append(Problem(where, round(sent), rule, "Lower the rate or the seconds."))
        if sent is not None and sent * parts < wanted:
            problems.append(
                Problem(
                    where,
                    round(sent * parts, 1),
                    f"its arrivals give about so many requests in {parts} run(s) of {seconds:g} s, and "
                    f"rollout.objectives.min_samples is {wanted}: it could never be judged",
                    "Raise the rate or the seconds, or lower min_samples.",
                )
            )
    return problems


def _problems_of_trace(trace: Trace, spec: Spec) -> list[Problem]:
    load, most = spec.rollout.load, spec.compile.sequence_length
    name, problems = load.workload.trace, []
    if load.arrivals and load.arrivals.process == "trace" and not trace.timed:
        problems.append(
            Problem(
                "rollout.load.arrivals.process",
                "trace",
                f"the rows of {name} have no moments",
                "Add at (seconds) or timestamp (milliseconds) to them, or give a rate.",
            )
        )
    longest = TEMPLATE_TOKENS + trace.longest_request(load.longest_prompt, load.longest_output)
    if load.images:
        longest += load.images.tokens
    if longest > most:
        problems.append(
            Problem(
                "rollout.load.workload.trace",
                name,
                f"its longest request needs {longest} tokens (prompt, answer, and {TEMPLATE_TOKENS} for the "
                f"chat template), and {most} are compiled",
                "Take longer requests out of the trace, or raise compile.sequence_length.",
            )
        )
    return problems


def expected_requests(
    load: Load, seconds: float, trace: Trace | None = None, *, step: bool = False
) -> float | None:
    """How many an arm gets in a run, on average; None: a closed loop, where the servers decide."""
    arrivals = load.arrivals
    if arrivals is None:
        return None
    if arrivals.process == "trace":
        rows = trace.rows if trace else ()
        return float(sum((row.at or 0.0) / arrivals.speed <= seconds for row in rows))
    if arrivals.stages and not step:
        begun = sum(stage.seconds * (stage.rate + stage.ends_at) / 2 for stage in arrivals.stages)
    else:
        begun = seconds * (arrivals.rate or _first_rate(arrivals))
    return begun * load.turns
