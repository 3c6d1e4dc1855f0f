"""What our operators cost around their stages: the release DAG, its stages stubbed, against empty tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import median

from benchmarks.alternating import alternate
from benchmarks.model import Bar, Benchmark, Figure, Options, compared
from benchmarks.stack import Timed, airflow, timed_run
from benchmarks.statistics import Pair

PAIRS = 5
RATIO = Bar("<=", 1.10)
TASK_SECONDS = Bar("<=", 1.5)
PEER = "a DAG of the same shape whose tasks do nothing"
OURS, EMPTY = "bench_stubbed", "bench_empty"
RELEASE = "tiny-llama"
# The control plane: the operators' client of it is made from its kubeconfig.
PARTS = ("airflow-dags", "airflow-scheduler", "airflow-triggerer", "s3", "bucket", "apiserver")


def measure(options: Options) -> Sequence[Figure]:
    with airflow(options, PARTS) as session:

        def run(dag_id: str, conf: dict[str, str]) -> Timed:
            timed = timed_run(session, dag_id, conf)
            options.say(f"{dag_id}: {timed.took:.2f} s for {len(timed.tasks)} tasks")
            return timed

        sides = [partial(run, OURS, {"release": RELEASE}), partial(run, EMPTY, {})]
        rounds = alternate(sides, options.pairs or PAIRS)
    whole = [Pair(*(timed.took / len(timed.tasks) for timed in round_)) for round_ in rounds]
    # Between two tasks the scheduler sleeps, so part of a task's own time costs a run nothing: said apart.
    own = [Pair(*(median(timed.tasks) for timed in round_)) for round_ in rounds]
    ratio, ours, peer = compared("run, for each task", "s", "empty tasks", whole, RATIO)
    _, ours_alone, peer_alone = compared("a task's own process", "s", "empty task", own, None)
    return ratio, replace(ours, bar=TASK_SECONDS), peer, ours_alone, peer_alone


BENCHMARK = Benchmark(
    name="control-plane",
    claim="Connections, lease, record and notes around a stage cost little beside Airflow itself.",
    peer=PEER,
    seconds=150,
    measure=measure,
)
