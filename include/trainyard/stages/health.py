"""health: are the canary's Neuron devices well? neuron-monitor is asked in the server's own container."""

from __future__ import annotations

from typing import Any

from trainyard.errors import DeviceUnhealthy, Inconclusive, TrainyardError
from trainyard.kube.readers import PodReader, conditions_at
from trainyard.kube.servers import SERVER
from trainyard.neuron.health import Expected, Health, judge
from trainyard.neuron.readings import Reading
from trainyard.release import Release
from trainyard.stages.context import Context, Done
from trainyard.stages.ready import server_pods


def run(ctx: Context, release: Release) -> Done:
    """Raises DeviceUnhealthy; Inconclusive (retried) where neuron-monitor says nothing."""
    found = {pod: look(ctx, pod, release.plan.chips) for pod in server_pods(ctx, release.id)}
    if not found:
        raise Inconclusive(f"No running server pod of {release.id} could be asked for its devices.")
    sick = [f"{pod}: {'; '.join(health.reasons)}" for pod, health in found.items() if health.state == "sick"]
    if sick:
        raise DeviceUnhealthy(
            f"Neuron devices are not well: {' | '.join(sick)}. The node is to blame before the model: "
            f"replace it."
        )
    silent = [
        f"{pod}: {'; '.join(health.reasons)}" for pod, health in found.items() if health.state == "unknown"
    ]
    if silent:
        raise Inconclusive(
            f"neuron-monitor gave no clear word, and silence is not health: {' | '.join(silent)}"
        )
    devices = sum(int(health.facts["devices"]) for health in found.values())
    return Done(
        f"{devices} Neuron device(s) healthy: no uncorrected ECC error, no runtime error, none timed out",
        {pod: dict(health.facts) for pod, health in found.items()},
    )


def look(ctx: Context, pod: str, chips: int) -> Health:
    """Asks one pod, and what its node's agents say of it: a silent pod does not hide a condemned node."""
    namespace, silent = ctx.settings.serving_namespace, ""
    readings: tuple[Reading, ...] = ()
    try:
        readings = PodReader(ctx.cluster, namespace, pod, SERVER).read()
    except Inconclusive as error:
        silent = str(error)
    found = judge(readings, Expected(devices=chips), conditions_at(ctx.cluster, namespace, pod))
    return Health("unknown", (silent,)) if silent and found.state == "unknown" else found


def sickness(ctx: Context, release: Release, *, thorough: bool) -> dict[str, Any] | None:
    """What is wrong with the canary's devices, for `rollout.judge`; None where nothing was seen.

    thorough: ask neuron-monitor too, which takes seconds. Else only what the nodes' agents say counts: the
    devices were well before the load test, and no word of a sick node is no word.
    """
    try:
        for pod in server_pods(ctx, release.id):
            if thorough:
                found = look(ctx, pod, release.plan.chips)
            else:
                conditions = conditions_at(ctx.cluster, ctx.settings.serving_namespace, pod)
                found = judge((), Expected(devices=release.plan.chips), conditions)
            if found.state == "sick":
                return {"state": "sick", "text": f"the devices of {pod}: {'; '.join(found.reasons)}"}
    except TrainyardError as error:  # a pod that goes away, or a cluster that does, must not cost the verdict
        ctx.log.warning("Not all devices of %s could be asked: %s", release.id, error)
    return None
