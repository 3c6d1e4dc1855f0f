"""Looks for new revisions of every model in the catalogue, and asks for a release of each.

The run id comes from the content, so the same answer twice triggers nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, task

from trainyard.asking import DAG_ID
from trainyard.settings import Settings

with DAG(
    dag_id="model_refresh",
    description="Finds new model revisions and triggers their releases.",
    doc_md=__doc__,
    schedule=Settings().refresh_schedule,
    catchup=False,
    max_active_runs=1,
    tags=["trainyard"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=Settings().retry_seconds)},
) as dag:

    @task
    def list_models() -> list[str]:
        """The entries of the catalogue."""
        from trainyard import catalogue

        return catalogue.names(Settings().releases_dir)

    @task(map_index_template="{{ name }}")
    def look(name: str) -> dict[str, Any]:
        """One entry: the release to ask for, or nothing (skipped)."""
        from trainyard_airflow.operators.refresh import look_for_revision

        return look_for_revision(name)

    TriggerDagRunOperator.partial(
        task_id="release",
        trigger_dag_id=DAG_ID,
        logical_date=None,
        skip_when_already_exists=True,
        # An entry that failed or has nothing new must not keep the others from their release.
        trigger_rule="all_done",
    ).expand_kwargs(look.expand(name=list_models()))
