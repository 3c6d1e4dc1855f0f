"""How truly, and at what cost, a token stream is read at 64 streams, with an early role chunk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.alternating import alternate
from benchmarks.loading import our_reading, peers_reading
from benchmarks.model import Bar, Benchmark, Figure, Options
from benchmarks.statistics import Pair, ratios, spread

STREAMS, SECONDS, TOKENS = 64, 6.0, 128
ROUNDS = 3
PACKED = (1, 2, 4, 8)
PEER = "the paths of vllm bench serve (aiohttp + json) and of GuideLLM (httpx)"


def measure(options: Options) -> Sequence[Figure]:
    sides = [
        partial(our_reading, options, STREAMS, SECONDS, TOKENS),
        partial(peers_reading, options, "aiohttp", STREAMS, SECONDS, TOKENS),
        partial(peers_reading, options, "httpx", STREAMS, SECONDS, TOKENS),
    ]
    rounds = alternate(sides, options.pairs or ROUNDS, warm_up=0)
    us, vllm, guidellm = zip(*rounds, strict=True)
    figures = [
        Figure("TTFT: bias", "of TTFT", spread([one.bias for one in us]), Bar("<=", 0.01)),
        Figure("TTFT: p99 error", "ms", spread([one.p99 * 1e3 for one in us]), Bar("<=", 1.0)),
        Figure("TTFT: p99 error, vllm's path", "ms", spread([one.p99 * 1e3 for one in vllm])),
        Figure("TTFT: p99 error, GuideLLM's path", "ms", spread([one.p99 * 1e3 for one in guidellm])),
        Figure("client CPU an event", "us", spread([one.cpu * 1e6 for one in us]), Bar("<=", 25.0)),
        Figure("client CPU an event, vllm's path", "us", spread([one.cpu * 1e6 for one in vllm])),
        Figure("client CPU an event, GuideLLM's path", "us", spread([one.cpu * 1e6 for one in guidellm])),
        Figure(
            "client CPU: ratio to vllm's path", "ratio",
            ratios([Pair(a.cpu, b.cpu) for a, b in zip(us, vllm, strict=True)]), Bar("<=", 0.4),
        ),
        Figure(
            "client CPU: ratio to GuideLLM's path", "ratio",
            ratios([Pair(a.cpu, b.cpu) for a, b in zip(us, guidellm, strict=True)]), Bar("<=", 0.1),
        ),
    ]  # fmt: skip
    for packed in PACKED:
        knobs = {"tokens_a_chunk": packed}
        us_, them = (
            our_reading(options, 16, 3.0, TOKENS, **knobs),
            peers_reading(options, "aiohttp", 16, 3.0, TOKENS, **knobs),
        )
        name = f"inter-token time, {packed} a chunk: error"
        figures.append(Figure(name, "of its mean", spread([abs(us_.gaps - 1)]), Bar("<=", 0.02)))
        figures.append(Figure(f"{name}, vllm's path", "of its mean", spread([abs(them.gaps - 1)])))
    return figures


BENCHMARK = Benchmark(
    name="stream-reader",
    claim="First tokens and gaps are stamped when they arrive, for less than half of what peers spend.",
    peer=PEER,
    seconds=200,
    measure=measure,
)
