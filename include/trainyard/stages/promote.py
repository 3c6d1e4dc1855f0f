"""promote: all traffic to the canary, by weights and labels only. What was measured is what serves."""

from __future__ import annotations

from trainyard.errors import Conflict
from trainyard.kube.cluster import Object
from trainyard.kube.traffic import set_weights, weights_of
from trainyard.release import Release, Weights, now
from trainyard.stages.context import Context, Done


def run(ctx: Context, release: Release) -> Done:
    """Raises LeaseLost, Conflict (stable changed since the plan)."""
    ctx.hold(release)
    stable = ctx.channels.read(release.model).stable
    if stable not in (release.channel, release.id):
        raise Conflict(
            f"{release.model} is at {stable} now, this release began when it was at {release.channel}. "
            "Nothing was changed: release again."
        )
    shift(ctx, release, {release.id: 100})
    ctx.channels.move(release.model, release.id, release.lease_token)
    relabel(ctx, release.id, "stable")
    if release.previous:
        relabel(ctx, release.previous, "previous")

    def promoted(document: dict[str, object]) -> None:
        if document["state"] == "promoted":
            return
        document["state"] = "promoted"
        document["outcome"] = f"Promoted {now()}" + (
            f" over {release.previous}." if release.previous else ", first release."
        )

    ctx.change(release, promoted)
    return Done(f"{release.id} is stable and takes 100 % of the traffic; no server was restarted")


def shift(ctx: Context, release: Release, percent: dict[str, int]) -> None:
    """Sets the live weights and writes them into the record."""
    live = weights_of(set_traffic(ctx, release, percent))

    def change(document: dict[str, object]) -> None:
        history = document["weights"]
        assert isinstance(history, list)
        if not history or history[-1]["percent"] != live:
            history.append(Weights(at=now(), percent=live).model_dump(mode="json"))

    ctx.change(release, change)


def set_traffic(ctx: Context, release: Release, percent: dict[str, int]) -> Object:
    """The route with these weights. Raises LeaseLost."""
    return set_weights(
        ctx.cluster,
        model=release.model,
        namespace=ctx.settings.serving_namespace,
        gateway=ctx.settings.gateway_name,
        gateway_namespace=ctx.settings.gateway_namespace,
        weights=percent,
        token=release.lease_token,
    )


def relabel(ctx: Context, release_id: str, role: str) -> None:
    """Says the role on Deployment and Service; the pods' template stays, so nothing restarts."""
    for kind in ("Deployment", "Service"):
        if ctx.cluster.find(kind, release_id, ctx.settings.serving_namespace) is not None:
            ctx.cluster.merge(
                kind,
                release_id,
                ctx.settings.serving_namespace,
                {"metadata": {"labels": {"trainyard.dev/role": role}}},
            )
