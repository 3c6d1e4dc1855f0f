"""Options of `trainyard bench` that contradict each other, or would do nothing."""

from __future__ import annotations

import typer

from trainyard.bench.arrivals import PROCESSES
from trainyard.bench.checking import is_number
from trainyard.bench.goodput import Limits
from trainyard.errors import Problem, Refused

# What does nothing by itself, and what it needs.
IDLE = {
    "process": "rate",
    "shape": "rate",
    "prompt_max": "prompt_sigma",
    "output_max": "output_sigma",
    "prefix_tokens": "prefix_groups",
    "think": "turns",
    "image_count": "images",
}


def refuse_idle(ctx: typer.Context) -> None:
    """Whoever gives an option expects it to do something. Raises Refused."""
    asked, problems = ctx.params, []
    for name, needed in IDLE.items():
        if _given(ctx, name) and not _given(ctx, needed):
            problems.append(_useless(ctx, name, f"without --{_option(needed)}", "Give both, or neither"))
    if _given(ctx, "rate"):
        if asked["process"] not in PROCESSES:
            remedy = f"Known: {', '.join(PROCESSES)}"
            problems.append(Problem("--process", asked["process"], "is not known", remedy))
        elif _given(ctx, "shape") and asked["process"] != "gamma":
            rule = f"with the process {asked['process']}"
            problems.append(_useless(ctx, "shape", rule, "Give --process gamma, or leave it out"))
        if _given(ctx, "concurrency"):
            rule = "with --rate, which sends whatever the server does"
            problems.append(_useless(ctx, "concurrency", rule, "Leave one of them out"))
    if problems:
        raise Refused(problems)


def refuse_speed(ctx: typer.Context) -> None:
    """Of a load that replays no trace."""
    if _given(ctx, "speed"):
        remedy = "Give --trace with moments and no --rate or --concurrency, or leave it out"
        raise Refused(_useless(ctx, "speed", "where no trace is replayed", remedy))


def _given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _useless(ctx: typer.Context, name: str, when: str, remedy: str) -> Problem:
    return Problem(f"--{_option(name)}", ctx.params[name], f"does nothing {when}", remedy)


def _option(name: str) -> str:
    return name.replace("_", "-")


def limits_of(**given: float | None) -> Limits:
    """Of --ttft-limit and its kin. Raises Refused."""
    problems = [
        Problem(
            f"--{name}-limit", value, "must be a number of seconds above zero", "Correct it, or leave it out"
        )
        for name, value in given.items()
        if value is not None and not (is_number(value) and value > 0)
    ]
    if problems:
        raise Refused(problems)
    return Limits(**given)
