"""compile_node: follows the compile pod's NodeClaim, beside the compile, until its devices are there."""

from __future__ import annotations

from trainyard.release import Release
from trainyard.stages.context import Context, Done, Skip, Watch
from trainyard.store.bundles import bundle_usable


def watch(ctx: Context, release: Release) -> Watch | Skip:
    if bundle_usable(ctx.objects, release.plan.fingerprint):
        return Skip("nothing is compiled, so no node is needed")
    return node_watch(ctx, release, ctx.settings.jobs_namespace, "compile", f"compile-{release.id}-")


def finish(ctx: Context, release: Release, note: str, data: dict[str, object]) -> Done:
    return Done(note, data)


def give_up(ctx: Context, release: Release) -> None:
    """A compile pod that gets no node must not be waited for by the compile task either."""
    labels = f"trainyard.dev/release={release.id},app.kubernetes.io/component=compile"
    for pod in ctx.cluster.list("Pod", ctx.settings.jobs_namespace, labels=labels):
        if not (pod.get("spec") or {}).get("nodeName"):
            ctx.cluster.delete("Pod", pod["metadata"]["name"], ctx.settings.jobs_namespace)


def node_watch(ctx: Context, release: Release, namespace: str, component: str, pods_named: str) -> Watch:
    return Watch(
        "node_ready",
        {
            "namespace": namespace,
            "labels": f"trainyard.dev/release={release.id},app.kubernetes.io/component={component}",
            "chips": release.plan.chips,
            "nodepool": release.spec.hardware.nodepool,
            "pods_named": pods_named,
        },
        ctx.settings.capacity_wait_minutes * 60,
        "NoCapacity",
    )
