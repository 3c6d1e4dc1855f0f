"""judge: the verdict on the load test, against the SLOs of the spec and the baseline."""

from __future__ import annotations

from trainyard.release import Release
from trainyard.stages.context import Context, Done
from trainyard.stages.load import PHASE
from trainyard.stages.measure import enforce, judged


def run(ctx: Context, release: Release) -> Done:
    """Raises VerdictFailed, Undecided."""
    verdict, _ = judged(ctx, release, PHASE)
    against = (
        f"the SLOs and {release.previous}" if release.previous else "the SLOs alone: there is no baseline yet"
    )
    return Done(f"{enforce(verdict, 'Load test:')} (against {against})", {"outcome": verdict.outcome})
