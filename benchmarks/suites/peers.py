"""What the peers themselves report of the time to the first token, and what the server knows of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.loading import ours
from benchmarks.model import Bar, Benchmark, Figure, NotMeasured, Options
from benchmarks.statistics import spread
from benchmarks.tools import TOOLS, Load, Tool
from benchmarks.truth import Truth, truth_server
from trainyard.bench.summary import quantile

STREAMS, REQUESTS, TOKENS = 64, 320, 128
ROUNDS = 1
US = "ours"
Error = tuple[float, float]  # the mean one, as a share of the true TTFT; p99 of its size, in seconds


def measure(options: Options) -> Sequence[Figure]:
    found: dict[str, list[Error]] = {US: []}
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
    return list(_figures({name: errors for name, errors in found.items() if errors}))


def _there(tool: Tool, options: Options) -> bool:
    try:
        tool.find()
    except NotMeasured as error:
        options.say(f"not measured: {error}")
        return False
    return True


def _figures(found: Mapping[str, Sequence[Error]]) -> Sequence[Figure]:
    """Ours first, held to the bars and to the best of theirs."""
    figures = []
    bars: tuple[tuple[str, str, float, float], ...] = (
        ("TTFT: bias", "of TTFT", 1.0, 0.01),
        ("TTFT: p99 error", "ms", 1e3, 1.0),
    )
    for index, (name, unit, scale, bar) in enumerate(bars):
        spreads = {who: spread([error[index] * scale for error in errors]) for who, errors in found.items()}
        best = min((one.median for who, one in spreads.items() if who != US), default=bar)
        for who, one in spreads.items():
            held = Bar("<=", min(bar, best)) if who == US else None
            figures.append(Figure(f"{name}, {who}", unit, one, held))
    return figures


def _ours(options: Options) -> Error:
    workload = {"concurrency": STREAMS, "requests": REQUESTS, "duration_seconds": 600}
    samples, _, truths = ours(options, {**workload, "output_tokens": TOKENS}, {})
    return _error([sample.started + (sample.ttft or 0.0) for sample in samples], truths)


def _theirs(options: Options, tool: Tool) -> Error:
    with truth_server(options.scratch) as server:
        load = Load(server.url, REQUESTS, STREAMS, TOKENS)
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            firsts = tool.run(load, Path(folder))
        truths = server.truths()
    bias, p99 = error = _error(firsts, truths)
    options.say(f"{tool.name}: {len(firsts)} requests, bias {bias:.2%}, p99 error {p99 * 1e3:.2f} ms")
    return error


def _error(firsts: Sequence[float], truths: Sequence[Truth]) -> Error:
    """firsts: moments at which first tokens came. They are held against the writes in order, first to first:
    no other assignment has a smaller error, so that nobody is wronged. Raises NotMeasured."""
    written = sorted(truth.writes[0][0] for truth in truths if truth.writes)[-len(firsts) :]
    if not firsts or len(written) != len(firsts):
        raise NotMeasured(f"{len(firsts)} first tokens were reported, {len(written)} were written")
    errors = [first - true for first, true in zip(sorted(firsts), written, strict=True)]
    waits = [truth.writes[0][0] - truth.asked for truth in truths if truth.writes]
    p99 = quantile(sorted(abs(error) for error in errors), 0.99)
    return abs(sum(errors) / len(errors)) / (sum(waits) / len(waits)), p99


BENCHMARK = Benchmark(
    name="peers",
    claim="What is reported as the time to the first token is what the server did.",
    peer="vllm bench serve, GuideLLM and AIPerf themselves, at the same load",
    seconds=240,
    measure=measure,
)
