"""The task of `model_refresh` that looks at one entry."""

from __future__ import annotations

import logging

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DagRunTriggerException

log = logging.getLogger("airflow.task")


def release_if_new(name: str) -> None:
    """Triggers the release of what is new; skips where nothing is, or where that run exists already.

    Raises what the provider's TriggerDagRunOperator raises. The operator itself is not used: importing it
    loads the metadata database's models into every parse.
    """
    from trainyard.asking import DAG_ID
    from trainyard.errors import PermanentError
    from trainyard.stages import refresh
    from trainyard.stages.context import Skip
    from trainyard_airflow import seams

    try:
        found = refresh.run(seams.context(), name)
    except PermanentError as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    if isinstance(found, Skip):
        raise AirflowSkipException(found.note)
    log.info("%s: new revision %s", name, found.conf["revision"])
    raise DagRunTriggerException(
        trigger_dag_id=DAG_ID,
        dag_run_id=found.run_id,
        conf=found.conf,
        logical_date=None,
        reset_dag_run=False,
        skip_when_already_exists=True,
        wait_for_completion=False,
        allowed_states=["success"],
        failed_states=["failed"],
        poke_interval=60,
        deferrable=False,
    )
