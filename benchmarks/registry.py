"""All benchmarks: every module of `benchmarks.suites` has a `BENCHMARK`. To add one, add a file there."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module

from benchmarks import suites
from benchmarks.model import Benchmark

SHORT_SECONDS = 60.0
BUDGET_SECONDS = 300.0


class UnknownBenchmark(Exception):
    """No benchmark has that name."""


def benchmarks() -> list[Benchmark]:
    """By name. Raises TypeError for a module without a benchmark in it."""
    found = []
    for module in pkgutil.iter_modules(suites.__path__):
        benchmark = getattr(import_module(f"{suites.__name__}.{module.name}"), "BENCHMARK", None)
        if not isinstance(benchmark, Benchmark):
            raise TypeError(f"benchmarks/suites/{module.name}.py has no BENCHMARK")
        found.append(benchmark)
    return sorted(found, key=lambda benchmark: benchmark.name)


def select(known: Sequence[Benchmark], *, only: Sequence[str] = (), full: bool = False) -> list[Benchmark]:
    """Those named; else all; else those of under a minute, the shortest first, as far as five minutes go."""
    by_name = {benchmark.name: benchmark for benchmark in known}
    if only:
        if unknown := sorted(set(only) - set(by_name)):
            raise UnknownBenchmark(
                f"no benchmark {', '.join(unknown)}; there are: {', '.join(sorted(by_name))}"
            )
        return [by_name[name] for name in dict.fromkeys(only)]
    if full:
        return list(known)
    chosen, left = [], BUDGET_SECONDS
    for benchmark in sorted(known, key=lambda benchmark: (benchmark.seconds, benchmark.name)):
        if benchmark.seconds < SHORT_SECONDS and benchmark.seconds <= left:
            chosen.append(benchmark)
            left -= benchmark.seconds
    return chosen
