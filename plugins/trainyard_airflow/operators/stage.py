"""Stages that do their work at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainyard_airflow.operators.base import ReleaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context as AirflowContext


class StageOperator(ReleaseOperator):
    """Runs a stage's `run`."""

    def execute(self, context: AirflowContext) -> None:
        with self.guarded(context):
            ctx, release = self.open(context)
            self.before(release)
            ctx.begin(release, self.task_id)
            result = self.module.run(ctx, release, **self.stage_kwargs)
            self.close(context, ctx, release, result)

    def before(self, release: object) -> None:
        """Refuses to go on with a release that was ended meanwhile."""
        from trainyard.stages.context import ensure_running

        ensure_running(release)  # type: ignore[arg-type]


class SettleOperator(StageOperator):
    """A stage that runs whatever happened before it (roll back, record): also for an ended release."""

    def before(self, release: object) -> None:
        return None
