"""health: are the canary's Neuron devices well? neuron-monitor is asked in the server's own container."""

from __future__ import annotations

import json

from trainyard.errors import DeviceUnhealthy, Inconclusive
from trainyard.kube.servers import SERVER
from trainyard.neuron.monitor import Health, judge_health, parse_reports
from trainyard.release import Release
from trainyard.stages.context import Context, Done
from trainyard.stages.ready import server_pods

_CONFIG = {
    "period": "1s",
    "neuron_runtimes": [
        {
            "tag_filter": ".*",
            "metrics": [
                {"type": "neuroncore_counters"},
                {"type": "memory_used"},
                {"type": "execution_stats"},
            ],
        }
    ],
    "system_metrics": [{"type": "neuron_hw_counters", "period": "1s"}],
}
# Long enough for two reports at a period of a second, and for a slow start of the tool.
_SECONDS = 8.0


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
    """Asks one pod. The monitor is stopped after its second report by `timeout`."""
    script = (
        f"printf '%s' '{json.dumps(_CONFIG)}' > \"${{TMPDIR:-/tmp}}/neuron-monitor.json\" && "
        'exec timeout 3.5 neuron-monitor -c "${TMPDIR:-/tmp}/neuron-monitor.json"'
    )
    out = ctx.cluster.execute(
        pod, ctx.settings.serving_namespace, SERVER, ["sh", "-c", script], seconds=_SECONDS
    )
    return judge_health(parse_reports(out), chips)
