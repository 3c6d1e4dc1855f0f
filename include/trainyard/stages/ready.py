"""ready: every replica of the canary has answered a real generation, and used the published bundle."""

from __future__ import annotations

from trainyard.errors import CanaryNotReady
from trainyard.kube.servers import SERVER
from trainyard.neuron.engines import engine
from trainyard.release import Release
from trainyard.stages.context import Context, Done, Skip, Watch


def watch(ctx: Context, release: Release) -> Watch | Skip:
    return Watch(
        "servers_ready",
        {
            "namespace": ctx.settings.serving_namespace,
            "name": release.workload,
            "labels": f"trainyard.dev/release={release.id}",
            "container": SERVER,
        },
        release.spec.serving.ready_deadline_minutes * 60,
        "CanaryNotReady",
    )


def finish(ctx: Context, release: Release, note: str, data: dict[str, object]) -> Done:
    """Reads the servers' logs: one that compiled again ignored the bundle, and would do so at every
    restart."""
    chosen = engine(release.spec.engine)
    for pod in server_pods(ctx, release.id):
        log = ctx.cluster.log(pod, ctx.settings.serving_namespace, SERVER, tail=2000)
        line = chosen.recompiled(log)
        if line is not None:
            raise CanaryNotReady(
                f"Pod {pod} compiled although bundle {release.plan.fingerprint[:12]} was given to it: "
                f"{line!r}. "
                "The bundle does not match the server's image or shapes."
            )
    return Done(f"{note}; nothing was compiled again", data)


def server_pods(ctx: Context, release_id: str) -> list[str]:
    """Names of the running server pods of a release."""
    pods = ctx.cluster.list(
        "Pod", ctx.settings.serving_namespace, labels=f"trainyard.dev/release={release_id}"
    )
    return sorted(
        pod["metadata"]["name"]
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Running"
        and not pod["metadata"].get("deletionTimestamp")
    )
