"""Looks for new revisions of every model in the catalogue, and asks for a release of each.

The run id comes from the content, so the same answer twice triggers nothing.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

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
    def release_if_new(name: str) -> None:
        """One entry: its release is triggered, or there is nothing new (skipped)."""
        from trainyard_airflow.operators.refresh import release_if_new as look

        look(name)

    release_if_new.expand(name=list_models())
