"""The task of `model_refresh` that looks at one entry."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

log = logging.getLogger("airflow.task")


def look_for_revision(name: str) -> dict[str, Any]:
    """Keyword arguments of the run to trigger. Skips where nothing is new; fails where the entry is wrong."""
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
    return {"trigger_run_id": found.run_id, "conf": found.conf}
