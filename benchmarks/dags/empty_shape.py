"""A DAG of the shape of `model_release` whose tasks do nothing: what Airflow itself costs.

Not EmptyOperator: the scheduler marks those as done without starting a process. A test holds the shape to
that of `model_release`; the file imports nothing of ours, so that it is a plain Airflow DAG in every way.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, BaseOperator, chain


class NothingOperator(BaseOperator):
    """Runs in a process of its own, as every task, and does nothing there."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("trigger_rule", "none_failed")
        super().__init__(**kwargs)

    def execute(self, context: Any) -> None:
        return None


with DAG(dag_id="bench_empty", schedule=None, max_active_runs=16, tags=["benchmark"]) as dag:
    plan = NothingOperator(task_id="plan", trigger_rule="all_success").as_setup()  # type: ignore[no-untyped-call]
    fetch = NothingOperator(task_id="fetch_model", trigger_rule="all_success")
    capacity = NothingOperator(task_id="check_capacity")
    compile_ = NothingOperator(task_id="compile")
    compile_node = NothingOperator(task_id="compile_node")
    publish = NothingOperator(task_id="publish")
    canary = NothingOperator(task_id="canary")
    canary_node = NothingOperator(task_id="canary_node")
    ready = NothingOperator(task_id="canary_ready")
    health = NothingOperator(task_id="device_health")
    warm_up = NothingOperator(task_id="warm_up")
    load_test = NothingOperator(task_id="load_test")
    judge = NothingOperator(task_id="judge")
    steps = [NothingOperator(task_id=f"step_{number}") for number in range(1, 5)]
    promote = NothingOperator(task_id="promote")
    drain = NothingOperator(task_id="drain_previous")
    roll_back = NothingOperator(task_id="roll_back").as_teardown(setups=plan)
    record = NothingOperator(task_id="record").as_teardown(setups=plan)

    chain(plan, fetch, capacity, [compile_, compile_node], publish, canary, [canary_node, ready], health)
    chain(health, warm_up, load_test, judge, *steps, promote, drain, roll_back, record)
