"""Looks for new revisions of every followed entry of the catalogue, and asks for a release of each.

The run id comes from the content, so the same answer twice triggers nothing.

Entries that name a model of Amazon Bedrock are compared with it. A `bedrock_step` that failed is
out of step, or Bedrock did not answer: its last line says which. It starts and stops no release.
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
        """The followed entries of the catalogue."""
        from trainyard import catalogue

        settings = Settings()
        return catalogue.followed(settings.releases_dir, settings.follow)

    @task(map_index_template="{{ name }}")
    def release_if_new(name: str) -> None:
        """One entry: its release is triggered, or there is nothing new (skipped)."""
        from trainyard_airflow.operators.refresh import release_if_new as look

        look(name)

    @task
    def list_hybrids() -> list[str]:
        """Those of them that name a Bedrock model."""
        from trainyard.stages.bedrock import hybrids

        return hybrids(Settings())

    @task(map_index_template="{{ name }}{{ ': ' ~ bedrock_state if bedrock_state is defined else '' }}")
    def bedrock_step(name: str) -> None:
        """One entry: in step with Bedrock, or failed with what is not."""
        from trainyard_airflow.operators.refresh import bedrock_step as compare

        compare(name)

    release_if_new.expand(name=list_models())
    bedrock_step.expand(name=list_hybrids())
