"""canary_node: follows the canary's NodeClaim, beside its start."""

from __future__ import annotations

from trainyard.release import Release
from trainyard.stages.compile_node import node_watch
from trainyard.stages.context import Context, Done, Skip, Watch


def watch(ctx: Context, release: Release) -> Watch | Skip:
    return node_watch(ctx, release, ctx.settings.serving_namespace, "server", f"{release.id}-")


def finish(ctx: Context, release: Release, note: str, data: dict[str, object]) -> Done:
    return Done(note, data)


def give_up(ctx: Context, release: Release) -> None:
    """Without a node there will be no server: taken away, so that `canary_ready` ends too."""
    ctx.cluster.delete("Deployment", release.workload, ctx.settings.serving_namespace)
