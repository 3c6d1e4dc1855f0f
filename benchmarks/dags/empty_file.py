"""The least that a DAG file can be: one DAG of one EmptyOperator. Peer of the benchmark `dag-parse`."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG(dag_id="bench_empty_file", schedule=None, tags=["benchmark"]) as dag:
    EmptyOperator(task_id="nothing")
