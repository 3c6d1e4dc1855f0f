"""How long Airflow takes to read our DAG files: fresh interpreters, against a file with one EmptyOperator."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.alternating import alternate
from benchmarks.model import Bar, Benchmark, Figure, NotMeasured, Options, compared
from benchmarks.statistics import Pair, spread

PAIRS = 7
BAR = Bar("<=", 1.3)
PEER = "a DAG file with one EmptyOperator"
DAGS = ("model_release", "model_refresh")


@dataclass(frozen=True)
class Cost:
    """Of one process, in seconds. cpu: user and system time together."""

    cpu: float
    wall: float


# Seconds of reading the file once more, in an interpreter that has Airflow and ours imported: what the DAG
# processor and the process of a task pay.
_AGAIN = """
import runpy, sys, time
runpy.run_path(sys.argv[1])
times = []
for _ in range(5):
    begun = time.process_time()
    runpy.run_path(sys.argv[1])
    times.append(time.process_time() - begun)
print(min(times))
"""


def measure(options: Options) -> Sequence[Figure]:
    environment = _environment(options)
    empty = options.repository / "benchmarks" / "dags" / "empty_file.py"
    files = [options.repository / "dags" / f"{name}.py" for name in DAGS]
    sides = [partial(_interpret, path, environment) for path in (empty, *files)]
    rounds = alternate(sides, options.pairs or PAIRS)
    figures: list[Figure] = []
    for index, name in enumerate(DAGS, 1):
        # Processor time first: it is what the file costs, whatever else the machine does.
        cpu = [Pair(costs[index].cpu, costs[0].cpu) for costs in rounds]
        wall = [Pair(costs[index].wall, costs[0].wall) for costs in rounds]
        figures += compared(f"{name}.py, processor time", "s", "empty file", cpu, BAR)
        figures += compared(f"{name}.py, wall time", "s", "empty file", wall, BAR)
    for path in (*files, empty):
        again = float(_run([sys.executable, "-c", _AGAIN, str(path)], environment)) * 1000
        figures.append(Figure(f"{path.name}, once more in the same process", "ms", spread([again])))
    return figures


def _interpret(path: Path, environment: dict[str, str]) -> Cost:
    before, begun = os.times(), time.perf_counter()
    _run([sys.executable, str(path)], environment)
    after, ended = os.times(), time.perf_counter()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return Cost(cpu, ended - begun)


def _run(command: list[str], environment: dict[str, str]) -> str:
    """Its standard output's last line. Raises NotMeasured."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise NotMeasured(f"{command[-1]} cannot be read as a DAG file: {done.stderr[-800:]}")
    return (done.stdout.splitlines() or [""])[-1]


def _environment(options: Options) -> dict[str, str]:
    """Defaults of Airflow, and no setting of the caller's."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PATH", "TMPDIR") if name in os.environ}
    paths = (options.repository, options.repository / "include", options.repository / "plugins")
    return {**kept, "AIRFLOW_HOME": str(options.scratch), "PYTHONPATH": os.pathsep.join(map(str, paths))}


BENCHMARK = Benchmark(
    name="dag-parse",
    claim="Reading a DAG file of ours costs little more than reading an empty one.",
    peer=PEER,
    seconds=50,
    measure=measure,
)
