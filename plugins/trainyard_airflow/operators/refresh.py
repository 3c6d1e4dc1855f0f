"""The tasks of `model_refresh` that look at one entry."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import get_current_context
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


def bedrock_step(name: str) -> None:
    """Fails, without another try, where the entry is out of step; silence of Bedrock is tried again.

    What was seen is XCom `note`, and the state is part of the mapped task's name.
    """
    from trainyard.errors import PermanentError, TransientError
    from trainyard.stages import bedrock
    from trainyard_airflow import seams
    from trainyard_airflow.operators.base import NOTE

    context = get_current_context()
    try:
        step = bedrock.run(seams.context(), name, seams.bedrock)
    except PermanentError as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    except TransientError as error:
        _say(context, "unknown")
        context["ti"].xcom_push(key=NOTE, value=f"Unknown: {error}")
        raise
    _say(context, step.state.replace("_", " "))
    context["ti"].xcom_push(key=NOTE, value=step.words)
    if step.mismatches:
        raise AirflowFailException(f"{name}: {step.words}")
    log.log(logging.WARNING if step.notices else logging.INFO, "%s: %s", name, step.words)


def _say(context: Any, state: str) -> None:
    """For the DAG's map_index_template, which is rendered again when the task has ended."""
    context["bedrock_state"] = state
