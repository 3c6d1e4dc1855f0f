"""Whether an open loop keeps its schedule, and what it shows of a server that stands still."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.loading import kolmogorov, ours, peers_reading
from benchmarks.model import Bar, Benchmark, Figure, Options
from benchmarks.statistics import spread
from trainyard.bench.sketch import Sketch, merged
from trainyard.bench.summary import QUANTILES, quantile, values

RATE, SECONDS = 200.0, float(os.environ.get("TRAINYARD_BENCH_SECONDS", "300"))
FROZEN_RATE, FROZEN_SECONDS, FROZEN, TTFT = 50.0, 30.0, 5.0, 0.02
RUNS = 3
# Of so many gaps a test sees lateness of a millisecond; of all of them it sees that of 50 us, at any rate.
GAPS = 1000


def measure(options: Options) -> Sequence[Figure]:
    achieved, late, chance, planned, gapped = [], [], [], [], []
    for seed in range(1, (options.pairs or 1) + 1):
        workload = {"duration_seconds": SECONDS, "output_tokens": 2}
        arrivals = {"process": "poisson", "rate": RATE}
        samples, summary, _ = ours(options, {**workload, "arrivals": arrivals}, {"ttft": TTFT}, seed)
        starts = sorted(sample.started for sample in samples)
        gaps = [after - before for before, after in pairwise(starts)]
        due = sorted(sample.started + sample.intended for sample in samples)
        rate = (due[-1] - due[0]) / (starts[-1] - starts[0])
        achieved.append(abs(summary["generator"]["achieved"] * rate - 1))
        late.append(summary["generator"]["send_lag_p99_seconds"] * 1e3)
        # Given their number, arrivals of a Poisson process are even over its time, and gaps exponential.
        chance.append(kolmogorov(starts, partial(_even, starts[0], starts[-1])))
        planned.append(kolmogorov([b - a for a, b in pairwise(due)], _exponential))
        gapped.append(kolmogorov(gaps[:: max(1, len(gaps) // GAPS)], _exponential))
        options.say(f"{len(samples)} sent, p99 {late[-1]:.2f} ms late")
    errors, closed = [], []
    for seed in range(1, RUNS + 1):
        error, shown = _frozen(options, seed)
        errors.append(error)
        closed.append(shown)
    pooled, sketched = _merged(options)
    return [
        Figure("p99 of the lateness of sends", "ms", spread(late), Bar("<=", 2.0)),
        Figure("requests a second: achieved, off by", "of requested", spread(achieved), Bar("<=", 0.002)),
        Figure("sends are Poisson: p of Kolmogorov and Smirnov", "p", spread(chance), Bar(">=", 0.01)),
        Figure(f"gaps of {GAPS} sends: p of the same", "p", spread(gapped), Bar(">=", 0.01)),
        Figure("gaps of all moments that were due: p of the same", "p", spread(planned), Bar(">=", 0.01)),
        Figure("frozen server: error of p99 TTFT", "of p99", spread(errors), Bar("<=", 0.03)),
        Figure("frozen server: what vllm's path shows in a closed loop", "of p99", spread(closed)),
        Figure("percentiles merged from 4 processes: error", "of exact", spread([pooled]), Bar("<=", 0.001)),
        Figure(
            "the same from sketches, and of 0.1 ms to 100 s",
            "of exact",
            spread([*sketched, _spanning()]),
            Bar("<=", 0.001),
        ),
    ]


def _even(first: float, last: float, moment: float) -> float:
    return (moment - first) / (last - first)


def _exponential(gap: float) -> float:
    return 1 - math.exp(-gap * RATE)


def _frozen(options: Options, seed: int) -> tuple[float, float]:
    """Error of p99 against its analytic value; the p99 of a closed loop of 8, over that value."""
    knobs = {"ttft": TTFT, "freeze_after": 10.0, "freeze_seconds": FROZEN}
    workload = {"duration_seconds": FROZEN_SECONDS, "output_tokens": 2}
    arrivals = {"process": "constant", "rate": FROZEN_RATE}
    samples, _, _ = ours(options, {**workload, "arrivals": arrivals}, knobs, seed)
    # Of n requests the longest waiting come first after the freeze begins, one every 1/rate.
    above = len(samples) - math.ceil(0.99 * len(samples))
    analytic = FROZEN - above / FROZEN_RATE + TTFT
    found = quantile(sorted(values(samples, "ttft_from_intended")), 0.99)
    peer = peers_reading(options, "aiohttp", 8, FROZEN_SECONDS, 2, early_role_chunk=False, **knobs)
    shown = quantile(sorted(error + peer.true for error in peer.errors), 0.99)
    return abs(found / analytic - 1), shown / analytic


def _merged(options: Options) -> tuple[float, list[float]]:
    """The largest error of a percentile of a run of four processes against numpy over all rows: as the
    summary has it; and, a metric, as four sketches do that were merged as those of four pods are."""
    workload = {"duration_seconds": 5.0, "output_tokens": 8, "processes": 4}
    arrivals = {"process": "poisson", "rate": 100.0}
    samples, summary, _ = ours(options, {**workload, "arrivals": arrivals}, {"ttft": TTFT, "itl": 0.002})
    worst, sketched = 0.0, []
    for metric in ("ttft", "itl", "e2e"):
        exact = _exact(values(samples, metric))
        found = [summary["arms"]["canary"][metric][name] for name in QUANTILES]
        worst = max(worst, _error(found, exact))
        # In an open loop `user` is the process that sent it.
        parts = [values([s for s in samples if s.user == process], metric) for process in range(4)]
        sketched.append(_error(_together(parts), exact))
    return worst, sketched


def _spanning() -> float:
    """The same of a million made-up times, evenly over the orders from 0.1 ms to 100 s."""
    chance = np.random.default_rng(1)
    parts = [10.0 ** chance.uniform(-4, 2, 250_000) for _ in range(4)]
    return _error(_together([part.tolist() for part in parts]), _exact(np.concatenate(parts)))


def _together(parts: Sequence[Sequence[float]]) -> list[float]:
    sent = [json.dumps(Sketch(part).to_dict()) for part in parts]
    return merged(Sketch.from_dict(json.loads(text)) for text in sent).quantiles(QUANTILES.values())


def _exact(numbers: Any) -> list[float]:
    return [float(np.quantile(numbers, q, method="inverted_cdf")) for q in QUANTILES.values()]


def _error(found: Sequence[float], exact: Sequence[float]) -> float:
    return max(abs(ours / true - 1) for ours, true in zip(found, exact, strict=True))


BENCHMARK = Benchmark(
    name="open-loop",
    claim="Requests are sent on schedule whatever the server does, and a stall of the server shows in full.",
    peer="the schedule itself and the analytic value; the path of vllm bench serve in a closed loop",
    seconds=560,
    measure=measure,
)
