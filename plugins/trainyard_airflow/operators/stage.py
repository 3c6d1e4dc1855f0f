"""Stages that do their work at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainyard_airflow.operators.base import ReleaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context as AirflowContext

    from trainyard.release import Release
    from trainyard.stages.context import Context, Done, Skip


class StageOperator(ReleaseOperator):
    """Runs a stage's `run`."""

    def execute(self, context: AirflowContext) -> None:
        with self.guarded(context):
            ctx, release = self.open(context)
            self.before(release)
            self.begin(ctx, release)
            result = self.module.run(ctx, release, **self.stage_kwargs)
            self.close(context, ctx, release, result)

    def begin(self, ctx: Context, release: Release) -> None:
        ctx.begin(release, self.task_id)

    def before(self, release: object) -> None:
        """Refuses to go on with a release that was ended meanwhile."""
        from trainyard.stages.context import ensure_running

        ensure_running(release)  # type: ignore[arg-type]


class SettleOperator(StageOperator):
    """A stage that runs whatever happened before it (roll back, record): also for an ended release.

    A release that lost its lease may not write into its record any more; what is left to do is done all
    the same. So it is after `record` gave the lease back: the next release may have it before this task ends.
    """

    def before(self, release: object) -> None:
        return None

    def begin(self, ctx: Context, release: Release) -> None:
        from trainyard.errors import LeaseLost

        try:
            super().begin(ctx, release)
        except LeaseLost as lost:
            self.log.warning("%s", lost)

    def close(self, context: AirflowContext, ctx: Context, release: Release, result: Done | Skip) -> None:
        from trainyard.errors import LeaseLost

        try:
            super().close(context, ctx, release, result)
        except LeaseLost as lost:
            self.log.warning("Not written into the record: %s (%s)", result.note, lost)
