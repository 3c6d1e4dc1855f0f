"""Whether a load test says so when its generator was the bottleneck."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.loading import PROMPT_TOKENS
from benchmarks.model import Bar, Benchmark, Figure, Options
from benchmarks.statistics import spread
from benchmarks.truth import truth_server
from trainyard.bench.load import run_load
from trainyard.bench.workload import Workload

RUNS = 20  # of the hundred; --pairs 100 for all
SECONDS = 3.0
# Four that go before the generator take as much of a core as twelve of its own rank, which everybody may
# start. They leave 8 % to it; with what two leave, it can be just fast enough.
FIRST, RANK = 4, "import os; assert os.nice(0) >= -15; os.nice(-5)"  # at -20 there is nothing before it
EQUAL = 12
SPIN = "while True: pass"


def measure(options: Options) -> Sequence[Figure]:
    first = subprocess.run([sys.executable, "-c", RANK], capture_output=True).returncode == 0
    words = [sys.executable, "-c", f"{RANK}\n{SPIN}" if first else SPIN]
    spin = [words] * (FIRST if first else EQUAL)
    flagged = [_starved(options, spin, seed) for seed in range(options.pairs or RUNS)]
    share = sum(flagged) / len(flagged)  # not a median, which would forgive a few
    return [Figure("starved runs that call themselves invalid", "of runs", spread([share]), Bar(">=", 1.0))]


def _starved(options: Options, spin: Sequence[Sequence[str]], seed: int) -> float:
    """1.0 if flagged. The generator shares one core with processes that never rest."""
    cores = os.sched_getaffinity(0)
    core = {min(cores)}
    workload = Workload(
        duration_seconds=SECONDS,
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=16,
        arrivals={"process": "poisson", "rate": 100.0},
        max_loop_lag_seconds=0.01,  # as `trainyard bench` has it
        drain_seconds=5.0,
    )
    spinning: list[subprocess.Popen[bytes]] = []
    with truth_server(options.scratch, ttft=0.02) as server:
        try:
            os.sched_setaffinity(0, core)
            spinning += [subprocess.Popen(words) for words in spin]
            _, summary = run_load(model="m", arms={"canary": [server.url]}, workload=workload, seed=seed)
        finally:
            os.sched_setaffinity(0, cores)
            for process in spinning:
                process.kill()
                process.wait()
    options.say("; ".join(summary["generator"]["reasons"]) or "not flagged")
    return float(not summary["generator"]["valid"])


BENCHMARK = Benchmark(
    name="starved-generator",
    claim="A run whose generator lacked processor time calls itself invalid.",
    peer="processes that never rest, on the same core",
    seconds=240,
    measure=measure,
)
