"""step_N: shift the weight, look at the split that clients really get, measure, judge."""

from __future__ import annotations

import time

from trainyard.errors import ClusterUnavailable, Conflict
from trainyard.kube.cluster import Object
from trainyard.kube.traffic import accepted
from trainyard.release import Release
from trainyard.rollout.shifts import split
from trainyard.stages.context import Context, Done, Skip
from trainyard.stages.measure import enforce, judged, load_pod, may_extend
from trainyard.stages.promote import shift

_ACCEPT_SECONDS = 30.0


def phase_of(number: int) -> str:
    return f"step-{number}"


def pod(ctx: Context, release: Release, number: int) -> Object | Skip | None:
    """Moves the weight, waits until the gateway has taken it over, and returns the measuring pod."""
    steps = release.spec.rollout.steps
    if number > len(steps):
        return Skip(f"the spec has {len(steps)} step(s)")
    if release.previous is None:
        return Skip("there is no stable release to share the traffic with")
    step = steps[number - 1]
    ctx.hold(release)
    stable = ctx.channels.read(release.model).stable
    if stable != release.previous:
        raise Conflict(f"{release.model} is at {stable} now, this release began against {release.previous}.")
    shift(ctx, release, split(release.previous, release.id, step.weight))
    _await_gateway(ctx, release)
    return load_pod(
        ctx, release, phase_of(number), step.observe_seconds, split=True, synthetic=step.synthetic
    )


def finish(ctx: Context, release: Release, number: int) -> Done:
    """Raises VerdictFailed, Inconclusive (another part is measured), Undecided."""
    step, phase = release.spec.rollout.steps[number - 1], phase_of(number)
    verdict, data = judged(ctx, release, phase, step.weight)
    seen = data.summary.get("split") or {}
    _record_observed(ctx, release, seen)
    return Done(
        f"{step.weight} % of the traffic ({seen.get('canary')} of {seen.get('answered')} probes reached the "
        f"canary): {enforce(verdict, f'Step {number}:', extend=may_extend(release, data))}",
        {"outcome": verdict.outcome, "split": seen},
    )


def _await_gateway(ctx: Context, release: Release) -> None:
    deadline = time.monotonic() + _ACCEPT_SECONDS
    while True:
        route = ctx.cluster.get("HTTPRoute", release.model, ctx.settings.serving_namespace)
        taken, why = accepted(route)
        if taken:
            return
        if time.monotonic() > deadline:
            raise ClusterUnavailable(
                f"The gateway did not take the weights over in {_ACCEPT_SECONDS:.0f} s: {why}"
            )
        time.sleep(0.2)


def _record_observed(ctx: Context, release: Release, seen: dict[str, object]) -> None:
    share = seen.get("share")
    if not isinstance(share, int | float):
        return

    def change(document: dict[str, object]) -> None:
        history = document["weights"]
        assert isinstance(history, list)
        if history:
            history[-1]["observed"] = {release.id: round(float(share), 4)}

    ctx.change(release, change)
