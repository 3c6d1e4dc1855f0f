"""What the peers themselves report of the time to the first token, and what the server knows of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loading import cpu_seconds, ours
from benchmarks.model import Bar, Benchmark, Figure, NotMeasured, Options
from benchmarks.statistics import Pair, ratios, spread
from benchmarks.tools import TOOLS, Load, Tool
from benchmarks.truth import Truth, truth_server
from trainyard.bench.summary import quantile

STREAMS, REQUESTS, TOKENS = 64, 1280, 128
ROUNDS = 1
US = "ours"
CPU_RATIOS = {"vllm bench serve": 0.4, "GuideLLM": 0.1}
START_REQUESTS = 64  # of a run that is as good as nothing but a start


@dataclass(frozen=True)
class Found:
    """Of one tool. bias: the mean error, as a share of the true TTFT. p99: of its size, seconds. cpu:
    processor seconds for each further event of a stream; a tool's start is not in it."""

    bias: float
    p99: float
    cpu: float


def measure(options: Options) -> Sequence[Figure]:
    found: dict[str, list[Found]] = {US: []}
    tools = [tool for tool in TOOLS if _there(tool, options)]
    if not tools:
        raise NotMeasured("no peer is there; benchmarks/peers/requirements.txt says how to install them")
    for _ in range(options.pairs or ROUNDS):
        found[US].append(_ours(options))
        for tool in tools:
            try:
                found.setdefault(tool.name, []).append(_theirs(options, tool))
            except NotMeasured as error:  # the others go on
                options.say(f"not measured: {error}")
    return list(_figures({name: runs for name, runs in found.items() if runs}))


def _there(tool: Tool, options: Options) -> bool:
    try:
        options.versions[tool.name] = tool.version()
    except NotMeasured as error:
        options.say(f"not measured: {error}")
        return False
    return True


def _figures(found: Mapping[str, Sequence[Found]]) -> Sequence[Figure]:
    """Ours first, held to the bars and to the best of theirs."""
    figures = []
    bars: tuple[tuple[str, str, Callable[[Found], float], float], ...] = (
        ("TTFT: bias", "of TTFT", lambda one: one.bias, 0.01),
        ("TTFT: p99 error", "ms", lambda one: one.p99 * 1e3, 1.0),
        ("client CPU an event", "us", lambda one: one.cpu * 1e6, 25.0),
    )
    for name, unit, value, bar in bars:
        spreads = {who: spread([value(one) for one in runs]) for who, runs in found.items()}
        best = min((one.median for who, one in spreads.items() if who != US), default=bar)
        for who, one in spreads.items():
            held = Bar("<=", min(bar, best)) if who == US else None
            figures.append(Figure(f"{name}, {who}", unit, one, held))
    for who, bar in CPU_RATIOS.items():
        if who in found:
            pairs = [Pair(ours.cpu, theirs.cpu) for ours, theirs in zip(found[US], found[who], strict=False)]
            figures.append(Figure(f"client CPU: ratio to {who}", "ratio", ratios(pairs), Bar("<=", bar)))
    return figures


def _ours(options: Options) -> Found:
    workload = {"concurrency": STREAMS, "requests": REQUESTS, "duration_seconds": 600}
    samples, summary, truths = ours(options, {**workload, "output_tokens": TOKENS}, {})
    bias, p99 = _errors([sample.started + (sample.ttft or 0.0) for sample in samples], truths)
    return Found(bias, p99, cpu_seconds(summary) / _events(len(samples)))


def _theirs(options: Options, tool: Tool) -> Found:
    """Two runs, a short one to know what the start takes."""
    outcomes = []
    for requests in (START_REQUESTS, START_REQUESTS + REQUESTS):
        with truth_server(options.scratch) as server:
            load = Load(server.url, requests, STREAMS, TOKENS)
            with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
                outcomes.append(tool.run(load, Path(folder)))
            truths = server.truths()
    short, whole = outcomes
    bias, p99 = _errors(whole.firsts, truths)
    found = Found(bias, p99, (whole.cpu - short.cpu) / _events(len(whole.firsts) - len(short.firsts)))
    options.say(
        f"{tool.name}: {len(whole.firsts)} requests, bias {bias:.2%}, p99 error {p99 * 1e3:.2f} ms, "
        f"{found.cpu * 1e6:.0f} us an event"
    )
    return found


def _events(requests: int) -> int:
    return requests * (TOKENS + 3)  # and role, count, [DONE]


def _errors(firsts: Sequence[float], truths: Sequence[Truth]) -> tuple[float, float]:
    """Bias and p99, see `Found`. firsts: moments at which first tokens came. They are held against the writes
    in order, first to first: no other assignment has a smaller error, so that nobody is wronged. Raises
    NotMeasured."""
    written = sorted(truth.writes[0][0] for truth in truths if truth.writes)[-len(firsts) :]
    if not firsts or len(written) != len(firsts):
        raise NotMeasured(f"{len(firsts)} first tokens were reported, {len(written)} were written")
    errors = [first - true for first, true in zip(sorted(firsts), written, strict=True)]
    waits = [truth.writes[0][0] - truth.asked for truth in truths if truth.writes]
    p99 = quantile(sorted(abs(error) for error in errors), 0.99)
    return abs(sum(errors) / len(errors)) / (sum(waits) / len(waits)), p99


BENCHMARK = Benchmark(
    name="peers",
    claim="The reported time to the first token is what the server did, and costs less to find out.",
    peer="vllm bench serve, GuideLLM and AIPerf themselves, at the same load",
    seconds=400,
    measure=measure,
)
