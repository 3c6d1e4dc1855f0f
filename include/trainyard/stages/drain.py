"""drain: the previous stable finishes its streams, then goes."""

from __future__ import annotations

import math
from datetime import timedelta

from trainyard.kube.traffic import weights_of
from trainyard.release import Release
from trainyard.stages.context import Context, Done, Skip, Watch

_MOST_SECONDS = 3600.0


def watch(ctx: Context, release: Release) -> Watch | Skip:
    if release.previous is None:
        return Skip("there was no stable release before this one")
    if ctx.cluster.find("Deployment", release.previous, ctx.settings.serving_namespace) is None:
        return Skip(f"{release.previous} is gone already")
    seconds = budget(release, ctx.settings.drain_seconds)
    until = (ctx.clock() + timedelta(seconds=seconds)).isoformat()
    return Watch(
        "elapsed",
        {"until": until, "words": f"{release.previous} finishes its streams"},
        seconds + 600,
        "ClusterUnavailable",
    )


def budget(release: Release, least: float) -> float:
    """The p99 of the streams that were measured on the previous stable, never less than `least` seconds."""
    longest = least
    for verdict in release.verdicts.values():
        for arm in (verdict.get("summary") or {}).get("arms", {}).values():
            value = (arm.get("e2e") or {}).get("p99")
            if isinstance(value, int | float) and math.isfinite(value):
                longest = max(longest, float(value))
    return min(longest, _MOST_SECONDS)


def finish(ctx: Context, release: Release, note: str, data: dict[str, object]) -> Done:
    """Removes the previous stable, unless the live route gives it traffic. Raises LeaseLost."""
    assert release.previous is not None
    ctx.hold(release)
    live = weights_of(ctx.cluster.find("HTTPRoute", release.model, ctx.settings.serving_namespace))
    if live.get(release.previous, 0) > 0:
        return Done(f"{release.previous} stays: the route gives it {live[release.previous]} % again")
    for kind in ("Deployment", "Service"):
        ctx.cluster.delete(kind, release.previous, ctx.settings.serving_namespace)
    return Done(
        f"{release.previous} had its time to finish and was removed; its bundle and record stay in S3"
    )
