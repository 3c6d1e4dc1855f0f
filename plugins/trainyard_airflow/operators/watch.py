"""Stages that wait for the cluster: deferred to a trigger, so that no worker is held."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from trainyard_airflow.operators.base import ReleaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context as AirflowContext

# The trigger itself says that time is up, with its last words; Airflow's own timeout is only the backstop.
_BACKSTOP = timedelta(minutes=5)


class WatchOperator(ReleaseOperator):
    """Runs a stage's `watch`, waits in the triggerer, then runs its `finish`."""

    def execute(self, context: AirflowContext) -> None:
        from trainyard.errors import PermanentError
        from trainyard.kube.watchers import WATCHERS
        from trainyard.stages.context import Skip, ensure_running
        from trainyard_airflow.triggers.cluster import ClusterTrigger
        from trainyard_airflow.triggers.patience import patience

        with self.guarded(context):
            ctx, release = self.open(context)
            if release.state != "promoted":
                ensure_running(release)
            ctx.begin(release, self.task_id)
            wanted = self.module.watch(ctx, release, **self.stage_kwargs)
            if isinstance(wanted, Skip):
                self.close(context, ctx, release, wanted)
                return
            # A first look at once: what is there already needs no triggerer.
            try:
                seen = WATCHERS[wanted.watcher](ctx.cluster, **wanted.arguments)
            except PermanentError as error:
                raise self.understood(context, error) from error
            if seen.done:
                result = self.module.finish(ctx, release, seen.note, dict(seen.data), **self.stage_kwargs)
                self.close(context, ctx, release, result)
                return
            self.log.info("%s", seen.note)
            self.defer(
                trigger=ClusterTrigger(
                    watcher=wanted.watcher,
                    arguments=dict(wanted.arguments),
                    seconds=wanted.seconds,
                    timeout_error=wanted.timeout,
                    poll_seconds=ctx.settings.poll_seconds,
                    kubernetes_conn_id=ctx.settings.kubernetes_conn_id,
                    pause=patience(),
                ),
                method_name="resume",
                timeout=timedelta(seconds=wanted.seconds) + _BACKSTOP,
            )

    def resume(self, context: AirflowContext, event: dict[str, Any]) -> None:
        from trainyard.stages.context import error_named

        # A wait that is over is not begun again: the watcher has waited as long as the settings allow.
        with self.guarded(context, final=True):
            if event["status"] != "done":
                self._give_up(context)
                raise self.understood(context, error_named(event["error"], event["message"]))
        with self.guarded(context):
            ctx, release = self.open(context)
            result = self.module.finish(ctx, release, event["note"], event["data"], **self.stage_kwargs)
            self.close(context, ctx, release, result)

    def _give_up(self, context: AirflowContext) -> None:
        """Lets the stage take away what was waited for, so that nothing beside it waits on."""
        give_up = getattr(self.module, "give_up", None)
        if give_up is not None:
            ctx, release = self.open(context)
            give_up(ctx, release)
