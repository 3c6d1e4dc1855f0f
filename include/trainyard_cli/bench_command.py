"""The options of `trainyard bench`, and the workload that they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trainyard.bench.trace import Trace

LONGEST = 8  # times the median, where no maximum is given
DURATION, CONCURRENCY = 30.0, 8


def _when(words: str) -> Any:
    return typer.Option(help=words, rich_help_panel="When requests are sent")


def _what(words: str, *names: str) -> Any:
    return typer.Option(*names, help=words, rich_help_panel="What is asked")


def _figures(words: str) -> Any:
    return typer.Option(help=words, rich_help_panel="Goodput and cost")


def _how(words: str, *names: str) -> Any:
    return typer.Option(*names, help=words, rich_help_panel="How it is measured")


def bench(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(help="An OpenAI-compatible server, such as http://127.0.0.1:8000.")],
    model: Annotated[str | None, typer.Option(help="Default: the first that the server lists.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Another server, asked the same, request by request.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of report.html, report.json, summary.json and the samples.")
    ] = Path("build/load"),
    report: Annotated[Path | None, typer.Option(help="The page, instead of in the folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary for machines.")] = False,
    duration: Annotated[
        float | None, _when("Seconds; of a sweep, of each rate. Default: 30, or the whole trace.")
    ] = None,
    requests: Annotated[int | None, _when("End after so many to each server.")] = None,
    concurrency: Annotated[int | None, _when("Closed loop: so many users at once. Default: 8.")] = None,
    rate: Annotated[
        str | None, _when("Open loop: requests a second. 10, a ramp 0-50, or a sweep 5,10,20 to the knee.")
    ] = None,
    process: Annotated[str, _when("Open loop: constant, poisson or gamma.")] = "poisson",
    shape: Annotated[float, _when("Of gamma; below 1 comes in bursts.")] = 1.0,
    speed: Annotated[float, _when("Replay a trace so many times as fast.")] = 1.0,
    prompt_tokens: Annotated[int, _what("About as many in every prompt; with a sigma, the median.")] = 256,
    prompt_sigma: Annotated[float | None, _what("Log-normal prompts: 0.5 is moderate, 1 wide.")] = None,
    prompt_max: Annotated[int | None, _what("Of log-normal prompts. Default: 8 x the median.")] = None,
    output_tokens: Annotated[
        int, _what("At most so many in every answer; with a sigma, the median of that limit.")
    ] = 64,
    output_sigma: Annotated[float | None, _what("Log-normal answers.")] = None,
    output_max: Annotated[int | None, _what("Of log-normal answers. Default: 8 x the median.")] = None,
    trace: Annotated[
        Path | None,
        _what(
            "JSONL of real traffic, Mooncake's or plain: lengths, shared prefixes, texts; and when, unless "
            "--rate or --concurrency is given."
        ),
    ] = None,
    prefix_groups: Annotated[int | None, _what("Prompts begin with one of so many texts.")] = None,
    prefix_tokens: Annotated[int, _what("Length of such a text, before the prompt's own.")] = 1024,
    turns: Annotated[
        int, _what("Questions of a conversation, each with all before it and the server's own answers.")
    ] = 1,
    think: Annotated[float, _what("Mean seconds that a user thinks between two questions.")] = 0.0,
    images: Annotated[str | None, _what("Show pictures of so many pixels, such as 512x512.")] = None,
    image_count: Annotated[int, _what("Pictures in a conversation's first question.")] = 1,
    completions: Annotated[bool, _what("Ask /v1/completions instead of chat.", "--completions")] = False,
    plain: Annotated[bool, _what("Ask for nothing that OpenAI's own API does not know.", "--plain")] = False,
    seed: Annotated[int, _what("The same seed asks the same.")] = 1,
    ttft_limit: Annotated[
        float | None,
        _figures("Seconds to the first token. Of a sweep: what p95 may be (default: 3 x the first)."),
    ] = None,
    itl_limit: Annotated[float | None, _figures("Seconds a token, a request's mean (TPOT).")] = None,
    e2e_limit: Annotated[float | None, _figures("Seconds to the end.")] = None,
    instance_type: Annotated[
        str | None, _figures("Of each server, such as trn2.48xlarge: for cost, and tokens a core.")
    ] = None,
    cores: Annotated[
        int | None, _figures("Logical NeuronCores of each server (default: all of the instance).")
    ] = None,
    price_per_hour: Annotated[
        float | None, _figures("Dollars of the instance, or without one of each server.")
    ] = None,
    processes: Annotated[int, _how("Load generators to share the work among.")] = 1,
    timeout: Annotated[float, _how("Seconds that an answer may take.")] = 60.0,
    max_lag: Annotated[float, _how("Seconds that the generator may be late (p99) in a valid run.")] = 0.01,
    warm_up: Annotated[
        bool,
        _how(
            "First visit every bucket until latency settles; none of it is measured.",
            "--warm-up/--no-warm-up",
            " /--no-warmup",
        ),
    ] = True,
) -> None:
    """Measure a server under load; exits 1 where nothing succeeded or the load generator was too slow."""
    from trainyard.bench.trace import read_trace
    from trainyard.bench.workload import Workload
    from trainyard_cli import benching
    from trainyard_cli.bench_options import limits_of, refuse_idle, refuse_speed
    from trainyard_cli.bench_report import hardware
    from trainyard_cli.main import _plain_errors, console

    with _plain_errors(), benching.stoppable():
        refuse_idle(ctx)
        limits = limits_of(ttft=ttft_limit, itl=itl_limit, e2e=e2e_limit)
        lines = read_trace(trace) if trace is not None else None
        seconds = DURATION if duration is None else duration
        arrivals: dict[str, Any] | None = None
        if rate is not None:
            stages = benching.parse_stages(rate, seconds)
            arrivals = {"process": process, "shape": shape, "stages": stages}
        elif concurrency is None and lines is not None and lines.timed:
            arrivals = {"process": "trace", "speed": speed}
            seconds = _whole(lines, speed) if duration is None else duration
        if arrivals is None or arrivals["process"] != "trace":
            refuse_speed(ctx)
        workload = Workload.from_dict(
            {
                "concurrency": CONCURRENCY if concurrency is None else concurrency,
                "duration_seconds": seconds,
                "requests": requests,
                "arrivals": arrivals,
                "prompt_tokens": prompt_tokens,
                "output_tokens": output_tokens,
                "prompt_lengths": _lengths(prompt_tokens, prompt_sigma, prompt_max),
                "output_lengths": _lengths(output_tokens, output_sigma, output_max),
                "trace": None if trace is None else str(trace.resolve()),
                "prefix": None
                if prefix_groups is None
                else {"groups": prefix_groups, "tokens": prefix_tokens},
                "conversation": None if turns == 1 else {"turns": turns, "think_seconds": think},
                "images": None if images is None else _images(images, image_count),
                "processes": processes,
                "timeout_seconds": timeout,
                "max_loop_lag_seconds": max_lag,
                "chat": not completions,
                "continuous_usage": not plain,
                "extra": {} if plain else {"ignore_eos": True},
            }
        )
        question = benching.Question(
            url,
            baseline,
            model,
            workload,
            seed,
            warm_up,
            out,
            limits=limits,
            hardware=hardware(instance_type, cores, price_per_hour),
            page=report,
        )
        code = benching.ask(question, console, as_json=as_json)
    raise typer.Exit(code)


def _whole(trace: Trace, speed: float) -> float:
    """Seconds of a replay; a trace whose requests all come at once takes a moment too."""
    return max(trace.seconds / speed, 1e-3) if speed > 0 else DURATION


def _lengths(median: int, sigma: float | None, most: int | None) -> dict[str, Any] | None:
    if sigma is None:
        return None
    return {"median": median, "sigma": sigma, "max": LONGEST * median if most is None else most}


def _images(size: str, count: int) -> dict[str, Any]:
    """Of `512x512`. Raises Refused."""
    from trainyard.errors import Problem, Refused

    width, cross, height = size.partition("x")
    try:
        return {"width": int(width), "height": int(height if cross else width), "count": count}
    except ValueError:
        raise Refused(Problem("images", size, "is no size of a picture", "Such as 512x512")) from None
