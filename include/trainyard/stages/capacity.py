"""capacity: is there room, before anything is asked for?"""

from __future__ import annotations

from trainyard.release import Release
from trainyard.stages.context import Context, Done, Skip, Watch


def watch(ctx: Context, release: Release) -> Watch | Skip:
    """The larger of compile and canary is what has to fit; both take the same chips."""
    return Watch(
        "capacity_free",
        {
            "nodepool": release.spec.hardware.nodepool,
            "chips": release.plan.chips,
            "order": [{"instance_type": release.spec.hardware.instance_type}],
            # A capacity block that ends under the compiler costs its work.
            "work_seconds": release.spec.compile.deadline_minutes * 60.0,
        },
        ctx.settings.capacity_wait_minutes * 60,
        "NoCapacity",
    )


def finish(ctx: Context, release: Release, note: str, data: dict[str, object]) -> Done:
    return Done(note, data)
