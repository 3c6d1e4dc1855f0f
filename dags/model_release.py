"""Brings one model revision into service: fetch, compile, publish, canary, load test, steps, promote or roll
back.

Trigger it from the UI, by REST (POST /api/v2/dags/model_release/dagRuns) or by `trainyard release`;
`model_refresh` triggers it on a schedule. All are the same DAG run.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, chain

from trainyard.params import params_schema
from trainyard.settings import Settings
from trainyard.spec import MAX_EXTENSIONS, MAX_STEPS
from trainyard_airflow.operators.plan import PlanOperator
from trainyard_airflow.operators.pod import JobPodOperator
from trainyard_airflow.operators.record import RecordOperator
from trainyard_airflow.operators.stage import SettleOperator, StageOperator
from trainyard_airflow.operators.watch import WatchOperator

PARAMS = {
    name: Param(default=None, **schema) if "null" in schema["type"] else Param(**schema)
    for name, schema in params_schema(Settings().releases_dir).items()
}

with DAG(
    dag_id="model_release",
    description="One model revision, from the Hub to all traffic, or back.",
    doc_md=__doc__,
    schedule=None,
    params=PARAMS,
    max_active_runs=16,
    tags=["trainyard"],
    render_template_as_native_obj=True,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=Settings().retry_seconds)},
) as dag:
    plan = PlanOperator(
        task_id="plan", doc_md="Validate, pin, check every rule; take the model's lease."
    ).as_setup()  # type: ignore[no-untyped-call]
    # What follows a setup must have Airflow's default rule; plan is never skipped, so it is the same here.
    fetch = JobPodOperator(task_id="fetch_model", stage="fetch", trigger_rule="all_success")
    capacity = WatchOperator(task_id="check_capacity", stage="capacity")
    compile_ = JobPodOperator(task_id="compile", stage="compile")
    compile_node = WatchOperator(task_id="compile_node", stage="compile_node")
    publish = StageOperator(task_id="publish", stage="publish")
    canary = StageOperator(task_id="canary", stage="canary")
    canary_node = WatchOperator(task_id="canary_node", stage="canary_node")
    ready = WatchOperator(task_id="canary_ready", stage="ready")
    health = StageOperator(task_id="device_health", stage="health")
    warm_up = JobPodOperator(task_id="warm_up", stage="warmup")
    # A try that measured too little is an extension; the stage says when it is enough (rollout.extensions).
    load_test = JobPodOperator(task_id="load_test", stage="load", retries=MAX_EXTENSIONS + 2)
    judge = StageOperator(task_id="judge", stage="judgement")
    steps = [
        JobPodOperator(
            task_id=f"step_{number}",
            stage="step",
            stage_kwargs={"number": number},
            retries=MAX_EXTENSIONS + 2,
        )
        for number in range(1, MAX_STEPS + 1)
    ]
    promote = StageOperator(task_id="promote", stage="promote")
    drain = WatchOperator(task_id="drain_previous", stage="drain")
    # Teardowns run whatever happened, also when a person marks the run as failed.
    roll_back = SettleOperator(task_id="roll_back", stage="rollback").as_teardown(setups=plan)
    record = RecordOperator(task_id="record", stage="record").as_teardown(setups=plan)

    chain(plan, fetch, capacity, [compile_, compile_node], publish, canary, [canary_node, ready], health)
    chain(health, warm_up, load_test, judge, *steps, promote, drain, roll_back, record)
