"""Which release gets which share at which point, and how to get back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from trainyard.spec import Step


def split(stable: str | None, canary: str, percent: int) -> dict[str, int]:
    """Weights with `percent` for the canary. Without a stable release there is nothing to split with."""
    if stable is None or stable == canary or percent >= 100:
        return {canary: 100}
    if percent <= 0:
        return {stable: 100}
    return {stable: 100 - percent, canary: percent}


def restored(stable: str | None) -> dict[str, int]:
    """Weights after an abort: all to stable; nothing where there never was one."""
    return {stable: 100} if stable else {}


def abort_plan(stable: str | None, stable_ready: int, steps: Sequence[Step]) -> str:
    """Said before the first shift: how stable is restored from the deepest step.

    stable_ready: replicas of stable that are ready now; none of them is touched before promotion.
    """
    if stable is None:
        return "There is no stable release: an abort takes the route away and removes the canary."
    deepest = max((step.weight for step in steps), default=0)
    return (
        f"At any point one change of the route gives all traffic back to {stable}; its {stable_ready} ready "
        f"replica(s) keep running until promotion and carry at least {100 - deepest} % before it."
    )
