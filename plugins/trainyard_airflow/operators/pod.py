"""Stages whose work is done by a pod: the provider's KubernetesPodOperator, deferrable, with the result
checked.

KubernetesPodOperator is held, not inherited: importing it costs seconds, and every parse of the DAG and every
task process would pay them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, TaskDeferred

from trainyard_airflow.operators.base import ReleaseOperator

if TYPE_CHECKING:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from airflow.sdk import Context as AirflowContext

    from trainyard.release import Release
    from trainyard.stages.context import Context

# Longer than any pod's own active deadline, so that the pod ends by its deadline and not by losing its
# watcher.
_MARGIN = timedelta(minutes=10)


class JobPodOperator(ReleaseOperator):
    """Runs the pod of a stage's `pod`, then its `finish`, which decides from what is in S3.

    A pod outlives scheduler, triggerer and worker: the next try finds it by what the task left in the task's
    state store, or by its labels, and goes on with it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pods: KubernetesPodOperator | None = None

    def execute(self, context: AirflowContext) -> None:
        from trainyard.stages.context import Skip, ensure_running

        with self.guarded(context):
            ctx, release = self.open(context)
            ensure_running(release)
            release = ctx.begin(release, self.task_id)
            manifest = self.module.pod(ctx, release, **self.stage_kwargs)
            if isinstance(manifest, Skip):
                self.close(context, ctx, release, manifest)
                return
            if manifest is not None:  # None: an earlier try's pod has done it, and only the end is missing
                self._follow(context, self._operator(ctx, manifest), None)
            self._finish(context)

    def trigger_reentry(self, context: AirflowContext, event: dict[str, Any]) -> None:
        """Called by KubernetesPodTrigger's event: for more logs, or because the pod ended."""
        with self.guarded(context):
            ctx, release = self.open(context)
            if release.state == "running":
                ctx.hold(release)  # a compile may take longer than a lease
                self._tell(ctx, release)
            operator = self._operator(ctx, {"metadata": {"namespace": event["namespace"]}})
            self._follow(context, operator, event)
            self._finish(context)

    def _tell(self, ctx: Context, release: Release) -> None:
        """What the pod says of its progress, into the record and the log. Not worth a failure."""
        from trainyard.errors import TrainyardError

        progress = getattr(self.module, "progress", None)
        if progress is None:
            return
        try:
            if words := progress(ctx, release):
                self.log.info("%s", words)
                ctx.note(release, self.task_id, words)
        except TrainyardError as error:
            self.log.warning("The pod's progress could not be told: %s", error)

    def on_kill(self) -> None:
        """A person stopped the task: the pod goes too."""
        if self._pods is not None:
            self._pods.on_kill()

    def _follow(
        self, context: AirflowContext, operator: KubernetesPodOperator, event: dict[str, Any] | None
    ) -> None:
        """Runs the provider's operator; a failure becomes the error that the pod itself tells of."""
        self._pods = operator
        try:
            if event is None:
                # Not `execute`: Airflow warns when that is called by anyone but its task runner.
                operator.execute_async(context)
            else:
                operator.trigger_reentry(context, event)
        except TaskDeferred:
            raise
        except AirflowException as error:
            ctx, release = self.open(context)
            self._diagnose(context, ctx, release, operator, event, error)

    def _finish(self, context: AirflowContext) -> None:
        ctx, release = self.open(context)
        result = self.module.finish(ctx, release, **self.stage_kwargs)
        self.close(context, ctx, release, result)

    def _diagnose(
        self,
        context: AirflowContext,
        ctx: Context,
        release: Release,
        operator: KubernetesPodOperator,
        event: dict[str, Any] | None,
        error: AirflowException,
    ) -> None:
        """Raises the typed error of a pod that failed.

        Returns where the pod is gone or succeeded: then what it left in S3 decides (`finish`).
        """
        from trainyard.errors import PermanentError, TransientError
        from trainyard.kube import diagnosis

        name = str((event or {}).get("name") or (operator.pod.metadata.name if operator.pod else ""))
        namespace = str((event or {}).get("namespace") or operator.namespace)
        pod = ctx.cluster.find("Pod", name, namespace) if name else None
        if pod is None:
            self.log.warning("The pod is gone (%s); what it left in S3 decides.", error)
            return
        if (pod.get("status") or {}).get("phase") == "Succeeded":
            return
        log = ctx.cluster.log(name, namespace, operator.base_container_name, tail=400)
        events = ctx.cluster.events(namespace, name)
        found = diagnosis.ended(pod, log) or diagnosis.stuck(pod)
        if found is None and (why := diagnosis.unschedulable(pod, events)):
            found = diagnosis.not_scheduled(pod, why)
        if found is not None:
            found = self.understood(context, found)
        if log:
            ctx.objects.put(f"logs/{release.model}/{release.id}/{self.task_id}/{name}.log", log.encode())
        if isinstance(found, PermanentError):
            # Before the pod goes: a try that dies in between would leave the next one without its reason.
            ctx.fail(release, self.task_id, found)
        # One that has not ended keeps its place, and its node. One that has would be found, and believed, by
        # a retry.
        ctx.cluster.delete("Pod", name, namespace)
        raise found or TransientError(f"Pod {namespace}/{name} did not end well: {error}") from error

    def _operator(self, ctx: Context, manifest: dict[str, Any]) -> KubernetesPodOperator:
        from trainyard_airflow.operators.kubernetes import PatientPodOperator

        settings, spec = ctx.settings, manifest.get("spec") or {}
        deadline = timedelta(seconds=int(spec.get("activeDeadlineSeconds") or 24 * 3600))
        wait = settings.capacity_wait_minutes * 60
        return PatientPodOperator(
            task_id=self.task_id,
            kubernetes_conn_id=settings.kubernetes_conn_id,
            namespace=manifest["metadata"]["namespace"],
            name=manifest["metadata"].get("name", self.task_id),
            pod_template_dict=manifest if spec else None,
            base_container_name="base",
            deferrable=True,
            durable=True,
            random_name_suffix=True,
            get_logs=True,
            do_xcom_push=False,
            poll_interval=settings.poll_seconds,
            logging_interval=int(max(settings.poll_seconds * 2, 10)),
            # The node may have to be bought first, and the image is gigabytes.
            schedule_timeout_seconds=int(wait),
            startup_timeout_seconds=int(wait),
            startup_check_interval_seconds=max(1, int(min(settings.poll_seconds, 5))),
            execution_timeout=deadline + _MARGIN,
            termination_grace_period=60,
            # A failed pod stays until it was read; the spec is never logged: it would show literal values.
            on_finish_action="delete_succeeded_pod",
            log_events_on_failure=True,
            log_pod_spec_on_failure=False,
        )
