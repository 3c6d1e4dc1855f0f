"""roll_back: whatever failed, stable has all traffic again and the canary is gone. Decided from what
lives."""

from __future__ import annotations

from trainyard.kube.traffic import weights_of
from trainyard.release import Release, now, reason
from trainyard.rollout.shifts import restored
from trainyard.stages.context import Context, Done, Skip
from trainyard.stages.promote import relabel, set_traffic, shift

_TAIL = 60


def run(ctx: Context, release: Release) -> Done | Skip:
    """Does nothing for a promoted release. Raises LeaseLost: then the newer holder looks after the route."""
    if release.state == "promoted":
        return Skip("the release was promoted")
    ctx.hold(release)
    namespace = ctx.settings.serving_namespace
    stable = ctx.channels.read(release.model).stable
    if stable == release.id:
        # Promotion got as far as the channel before it failed: the canary is proven and is stable now.
        shift(ctx, release, {release.id: 100})
        relabel(ctx, release.id, "stable")
        _close(ctx, release, "promoted", "Promoted; a later step failed, see the log.")
        return Done(f"{release.id} was stable already when a later step failed: it keeps all traffic")
    done: list[str] = []
    if stable and ctx.cluster.find("Deployment", stable, namespace) is None:
        stable = None  # the channel names what this cluster does not have: no traffic can go there
    route = ctx.cluster.find("HTTPRoute", release.model, namespace)
    live = weights_of(route)
    had_traffic = live.get(release.id, 0)
    if stable is None and live:
        # Detached, not deleted: its token stands in the way of who was paused and would make it anew.
        set_traffic(ctx, release, {})
        done.append("the route was taken from the gateway (there is no stable release)")
    elif stable is not None and route is not None and live != restored(stable):
        shift(ctx, release, restored(stable))
        done.append(f"all traffic is back on {stable}")
    elif stable:
        done.append(f"{stable} had all traffic all the time")
    logs = _keep_logs(ctx, release)
    if logs:
        done.append(f"{logs} log(s) kept in S3")
    for pod in ctx.cluster.list(
        "Pod", ctx.settings.jobs_namespace, labels=f"trainyard.dev/release={release.id}"
    ):
        # A job whose task was stopped by a person, or lost, would hold its node for nobody.
        ctx.cluster.delete("Pod", pod["metadata"]["name"], ctx.settings.jobs_namespace)
        done.append(f"job pod {pod['metadata']['name']} was removed")
    removed = [kind for kind in ("Deployment", "Service") if ctx.cluster.delete(kind, release.id, namespace)]
    if removed:
        done.append("the canary was removed")
    deployed = bool(removed) or had_traffic > 0
    state = "rolled_back" if deployed or "canary" in release.stages else "failed"
    failure = release.failure.model_dump() if release.failure else {}
    _close(ctx, release, state, f"{state.replace('_', ' ').capitalize()} {now()}: {reason(failure)}")
    return Done("; ".join(done) or "nothing had been deployed")


def _close(ctx: Context, release: Release, state: str, outcome: str) -> None:
    def change(document: dict[str, object]) -> None:
        if document["state"] == "running":
            document["state"], document["outcome"] = state, outcome

    ctx.change(release, change)


def _keep_logs(ctx: Context, release: Release) -> int:
    """Copies the last lines of the canary's containers to S3 before the pods go."""
    kept = 0
    labels = f"trainyard.dev/release={release.id}"
    for pod in ctx.cluster.list("Pod", ctx.settings.serving_namespace, labels=labels):
        name = pod["metadata"]["name"]
        spec = pod.get("spec") or {}
        for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
            text = ctx.cluster.log(name, ctx.settings.serving_namespace, container["name"], tail=_TAIL * 10)
            if text:
                key = f"logs/{release.model}/{release.id}/{name}/{container['name']}.log"
                ctx.objects.put(key, text.encode())
                kept += 1
    return kept
