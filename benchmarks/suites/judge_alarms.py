"""How often and how soon the judge stops a canary while it is measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.judging import Canary, alarms, figure, upper_bound
from benchmarks.model import Bar, Benchmark, Figure, Options

RUNS, PAIRS = 2000, 1000
MARGIN, DEFAULT = 1.10, 1.25


def measure(options: Options) -> Sequence[Figure]:
    runs = options.pairs or RUNS

    def false_alarms(name: str, canary: Canary, margin: float = MARGIN, bar: Bar | None = None) -> Figure:
        hits = int(np.count_nonzero(alarms(1, runs, PAIRS, canary, margin)))
        options.say(f"{name}: {hits} of {runs}")
        return figure(name, upper_bound(hits, runs), "share", bar)

    def soon(name: str, canary: Canary, margin: float = MARGIN, bar: Bar | None = None) -> Figure:
        found = alarms(2, runs // 2, 600, canary, margin)
        median = float(np.median(np.where(found > 0, found, 10_000)))
        options.say(f"{name}: {median:.0f} pairs, {np.mean(found > 0):.1%} within 600")
        return figure(name, median, "pairs", bar)

    return [
        false_alarms("A/A, drift, looked at after every pair: upper bound", Canary(), bar=Bar("<=", 0.05)),
        soon("2 x slower, +10 % allowed: median", Canary(ratio=2.0), bar=Bar("<=", 20)),
        soon("+50 %, +10 % allowed: median", Canary(ratio=1.5), bar=Bar("<=", 60)),
        false_alarms(
            "canary 10 % slower, +10 % allowed: upper bound",
            Canary(ratio=MARGIN, own=0.0),
            bar=Bar("<=", 0.05),
        ),
        false_alarms("the same, a fifth of the noise lasts: upper bound", Canary(ratio=MARGIN)),
        false_alarms(
            "A/A, half of each arm's noise lasts 10 pairs: upper bound", Canary(own=0.5, memory=0.9)
        ),
        false_alarms("A/A, the same, +25 % allowed: upper bound", Canary(own=0.5, memory=0.9), DEFAULT),
        soon("ttft alone 2 x slower, +10 % allowed: median", Canary(ratio=2.0, only="ttft")),
        soon("ttft alone +50 %, +10 % allowed: median", Canary(ratio=1.5, only="ttft")),
        soon("2 x slower, +25 % allowed: median", Canary(ratio=2.0), DEFAULT),
        soon("+50 %, +25 % allowed: median", Canary(ratio=1.5), DEFAULT),
    ]


BENCHMARK = Benchmark(
    name="judge-alarms",
    claim="Watching a canary continuously raises no false alarms and stops a slow one within tens of pairs.",
    peer="the error rate that was agreed",
    seconds=240,
    measure=measure,
)
