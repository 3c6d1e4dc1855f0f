"""What the judge says at the end of a load test, by simulation of whole load tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from benchmarks.judging import Canary, figure, objectives, verdict
from benchmarks.model import Bar, Benchmark, Figure, Options

RUNS = 300
MARGIN, TIGHT = 1.25, 1.10
STRETCHED = 1 + 0.2231 / (1.6449 * 0.5)  # median as it was, p95 1.25 times
LOOKS = 3  # the default: a step may be prolonged twice


def measure(options: Options) -> Sequence[Figure]:
    runs = options.pairs or RUNS
    with ProcessPoolExecutor(os.cpu_count()) as pool:

        def seen(
            name: str, pairs: int, canary: Canary, margin: float = MARGIN, looks: int = LOOKS
        ) -> Counter[str]:
            asked = partial(verdict, pairs=pairs, canary=canary, objectives=objectives(margin, looks))
            found = Counter(pool.map(asked, range(runs), chunksize=8))
            options.say(f"{name}: {dict(found)}")
            return found

        def caught(name: str, pairs: int, canary: Canary, bar: float, margin: float = MARGIN) -> list[Figure]:
            found = seen(name, pairs, canary, margin)
            return [
                figure(f"{name}: not promoted", 1 - found["pass"] / runs, bar=Bar(">=", bar)),
                figure(f"{name}: failed, not held", found["fail"] / runs),
            ]

        def equal(pairs: int, margin: float = MARGIN) -> list[Figure]:
            name = f"equal servers, {pairs} an arm, {margin:g} x allowed"
            found = seen(name, pairs, Canary(), margin)
            return [
                figure(f"{name}: promoted", found["pass"] / runs),
                figure(f"{name}: failed", found["fail"] / runs),
            ]

        return [
            *caught("p95 +25 %, 600 an arm", 600, Canary(stretch=STRETCHED), 0.90),
            *caught("all +25 %, 600 an arm", 600, Canary(ratio=1.25), 0.90),
            *caught("p95 +25 %, +10 % allowed, 600 an arm", 600, Canary(stretch=STRETCHED), 0.90, TIGHT),
            *caught("all +25 %, +10 % allowed, 600 an arm", 600, Canary(ratio=1.25), 0.90, TIGHT),
            *caught("3 % of requests 5 x slower, 1,000 an arm", 1000, Canary(slow=0.03), 0.95),
            *equal(50), *equal(100), *equal(400), *equal(600), *equal(1500),
            *equal(50, 1.5), *equal(150, 1.5),
        ]  # fmt: skip


BENCHMARK = Benchmark(
    name="judge-verdicts",
    claim="A canary with a slow tail is not promoted, and one that is equal is.",
    peer="the error rate that was agreed",
    seconds=380,
    measure=measure,
)
