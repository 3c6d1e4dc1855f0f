"""Deletes from the bucket what nothing names any more, and says what that freed.

`look` goes first, always: it deletes nothing, and its note says what would go, by kind and bytes. A run that
you trigger stops there, unless you take the tick off `dry_run`. A scheduled run deletes only where
TRAINYARD_HOUSEKEEPING_DELETES says so.

Kept: what stable and the release before it need, releases that run, the last good ones of each model,
everything young, and what a publisher is writing now. So a rollback to any of them fetches and compiles
nothing.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, chain

from trainyard.settings import Settings
from trainyard_airflow.operators.housekeeping import SweepOperator

with DAG(
    dag_id="housekeeping",
    description="Collects what nothing points to. A dry run unless told otherwise.",
    doc_md=__doc__,
    schedule=Settings().housekeeping_schedule,
    catchup=False,
    max_active_runs=1,
    params={"dry_run": Param(True, type="boolean", description="Only say what would be deleted.")},
    tags=["trainyard"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=Settings().retry_seconds)},
) as dag:
    look = SweepOperator(task_id="look", look=True)
    manifests = SweepOperator(task_id="manifests", kinds=["manifests"])
    # What a manifest named that is gone is free only now.
    blobs = SweepOperator(task_id="blobs", kinds=["blobs"])
    uploads = SweepOperator(task_id="uploads", kinds=["uploads"])
    rest = SweepOperator(task_id="staging_logs_caches", kinds=["staging", "logs", "cache", "leftovers"])

    # One sweep at a time: they take turns in saying what they are about to delete.
    chain(look, manifests, blobs, uploads, rest)
