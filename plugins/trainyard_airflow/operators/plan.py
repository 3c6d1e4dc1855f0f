"""The first task: the Params become a plan, a record and a lease; or nothing is left to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from trainyard_airflow.operators.base import NOTE, PLAN, stage_module

if TYPE_CHECKING:
    from airflow.sdk import Context as AirflowContext


class PlanOperator(BaseOperator):
    """Runs `trainyard.stages.plan`. Returns {"model", "release"}; skips all other tasks where nothing is to
    do."""

    ui_color = "#eef4ff"
    stage = PLAN

    def execute(self, context: AirflowContext) -> dict[str, str]:
        return self._plan(context)

    def _plan(self, context: AirflowContext) -> dict[str, str]:
        from trainyard.errors import LeaseHeld, PermanentError
        from trainyard.spec import parse_request
        from trainyard_airflow import seams

        try:
            request = parse_request(_filled(context["params"]))
            planned = stage_module(self.stage).run(seams.context(), request, context["run_id"])
        except LeaseHeld as error:
            self.wait(context, error)
            raise AirflowFailException(
                f"{type(error).__name__}: {error} Waited as long as TRAINYARD_LEASE_WAIT_MINUTES allows."
            ) from error
        except PermanentError as error:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        self.log.info("%s", planned.note)
        where = {"model": planned.model, "release": planned.release_id}
        context["ti"].xcom_push(key=NOTE, value=planned.note)
        if planned.release is None:
            context["ti"].xcom_push(key="return_value", value=where)
            raise DownstreamTasksSkipped(tasks=sorted(self.get_flat_relative_ids(upstream=False)))
        return where

    def wait(self, context: AirflowContext, error: Exception) -> None:
        """Another release of the model runs: look again later, without holding a worker. Returns when time is
        up."""
        from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

        from trainyard_airflow import seams
        from trainyard_airflow.triggers.patience import patience

        settings = seams.settings()
        waited = (datetime.now(UTC) - context["ti"].start_date).total_seconds()
        if waited > settings.lease_wait_minutes * 60:
            return
        self.log.info("%s Looking again in a moment.", error)
        pause = timedelta(seconds=max(settings.poll_seconds * 2, patience()))
        self.defer(trigger=TimeDeltaTrigger(pause), method_name="resume")

    def resume(self, context: AirflowContext, event: Any = None) -> dict[str, str]:
        """Looks again: `execute`, as Airflow calls it for a task that was deferred."""
        return self._plan(context)


def _filled(params: Any) -> dict[str, Any]:
    """Params without those that were left empty in the form."""
    return {key: value for key, value in dict(params).items() if value not in (None, "")}
