"""CloudWatch Container Insights: what to ask for a node, and its answer -> readings.

Source: the metric reference of Container Insights with enhanced observability for EKS. Of what a gate needs
it has totals only: ECC events corrected or not, execution errors of any kind, no time-outs. So it can clear a
node, and raise doubts, and never condemn one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from trainyard.errors import Problem, Refused
from trainyard.neuron.health import UNTOLD
from trainyard.neuron.readings import INSIGHTS, Reading, count, is_number

NAMESPACE = "ContainerInsights"
PERIOD = 60  # seconds; the agent publishes once a minute
_NODE = "ClusterName,InstanceId,NodeName"
_METRICS = {
    "ecc": ("node_neurondevice_hw_ecc_events_total", f"{_NODE},NeuronDevice", "Sum"),
    "errors": ("node_neuron_execution_errors_total", _NODE, "Sum"),
    "memory": ("node_neurondevice_runtime_memory_used_bytes", _NODE, "Average"),
    "used": ("node_neuroncore_utilization", _NODE, "Average"),
}


def queries(cluster_name: str, node_name: str) -> list[dict[str, Any]]:
    """`MetricDataQueries` of GetMetricData for one node. Raises Refused for names that no cluster has."""
    for label, name in (("cluster_name", cluster_name), ("node_name", node_name)):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", name):
            raise Refused(Problem(label, name, "not a name of EKS", "Use letters, digits, '.', '_' and '-'."))
    return [
        {
            "Id": key,
            # By SEARCH, because the instance id is not known, nor how many devices there are.
            "Expression": (
                f'SEARCH(\'{{{NAMESPACE},{dimensions}}} MetricName="{metric}" '
                f'ClusterName="{cluster_name}" NodeName="{node_name}"\', \'{statistic}\', {PERIOD})'
            ),
            "Label": "${PROP('Dim.NeuronDevice')}" if key == "ecc" else key,
            "ReturnData": True,
        }
        for key, (metric, dimensions, statistic) in _METRICS.items()
    ]


def parse_results(results: Iterable[Mapping[str, Any]]) -> list[Reading]:
    """`MetricDataResults` -> one reading for every minute that has any value, oldest first."""
    values: dict[float, dict[str, float]] = {}
    ecc: dict[float, dict[int, int]] = {}
    for result in results:
        for at, value in _points(result):
            if result.get("Id") == "ecc":
                device = re.search(r"([0-9]{1,6})$", str(result.get("Label") or ""))
                if device is not None:
                    ecc.setdefault(at, {})[int(device[1])] = count(value)
            else:
                values.setdefault(at, {})[str(result.get("Id"))] = value
    return [
        Reading(
            source=INSIGHTS,
            at=at,
            runtimes=1 if "used" in values.get(at, {}) else 0,
            errors={UNTOLD: count(values.get(at, {}).get("errors"))},
            ecc=ecc.get(at, {}),
            utilization_percent=values.get(at, {}).get("used"),
            memory_bytes=count(values.get(at, {}).get("memory")),
        )
        for at in sorted({*values, *ecc})
    ]


def _points(result: Mapping[str, Any]) -> Iterable[tuple[float, float]]:
    times: Sequence[datetime] = result.get("Timestamps") or []
    values: Sequence[float] = result.get("Values") or []
    for moment, value in zip(times, values, strict=False):
        if is_number(value):
            yield moment.timestamp(), float(value)
