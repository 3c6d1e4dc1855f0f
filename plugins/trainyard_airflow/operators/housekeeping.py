"""The sweep as a task: one kind of thing, or a look at all of them that deletes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from trainyard_airflow.operators.base import NOTE

if TYPE_CHECKING:
    from airflow.sdk import Context as AirflowContext


class SweepOperator(BaseOperator):
    """Deletes what nothing names any more; see docs/housekeeping.md.

    A run that somebody triggered does as its Param `dry_run` says; a scheduled one as
    TRAINYARD_HOUSEKEEPING_DELETES says.

    :param kinds: of `trainyard.store.sweep.KINDS`; all of them where none is named.
    :param look: only say what would go, whatever the run is.
    """

    ui_color = "#eef4ff"

    def __init__(self, *, kinds: Sequence[str] = (), look: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kinds, self.look = tuple(kinds), look

    def execute(self, context: AirflowContext) -> dict[str, Any]:
        from trainyard.errors import PermanentError
        from trainyard.stages import housekeeping
        from trainyard.store.sweep import KINDS
        from trainyard_airflow import seams

        settings = seams.settings()
        if not self.look and not deletes(context, settings.housekeeping_deletes):
            raise AirflowSkipException("This is a dry run: see what the task `look` says.")
        try:
            done = housekeeping.run(seams.objects(settings), settings, self.kinds or KINDS, dry_run=self.look)
        except PermanentError as error:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        self.log.info("%s", done.note)
        for each in done.data["freed"]:
            for key in each["examples"]:
                self.log.info("  %s: %s", each["kind"], key)
        for release, why in done.data["releases"].items():
            self.log.info("  kept: %s (%s)", release, why)
        context["ti"].xcom_push(key=NOTE, value=done.note)
        return {"note": done.note, "freed": done.data["freed"]}


def deletes(context: AirflowContext, scheduled_deletes: bool) -> bool:
    """May this run delete?"""
    if str(context["dag_run"].run_type).rpartition(".")[2].lower() == "scheduled":
        return scheduled_deletes
    return context["params"].get("dry_run") is False
