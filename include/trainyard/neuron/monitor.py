"""neuron-monitor's JSON -> readings.

Source: neuron-monitor of SDK 2.32: one report a line; every group carries `period` and `error`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainyard.neuron.readings import ERROR_KINDS, MONITOR, UNCORRECTED, Reading, count, is_number

# What a look asks of neuron-monitor: a report a second.
CONFIG: Mapping[str, Any] = {
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


def parse_report(line: str, at: float = 0.0) -> Reading | None:
    """One line of output -> a reading; None where the line is no report (a torn line, a log message).

    at: when it was read, in seconds since the epoch; reports carry no time.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or "neuron_hardware_info" not in document:
        return None
    hardware = _mapping(document.get("neuron_hardware_info"))
    complaints = [f"neuron_hardware_info: {hardware['error']}"] if hardware.get("error") else []
    errors = dict.fromkeys(ERROR_KINDS, 0)
    timed_out, memory, used = 0, 0, []
    runtimes = [_mapping(item) for item in _list(document.get("neuron_runtime_data"))]
    for runtime in runtimes:
        if runtime.get("error"):
            complaints.append(f"neuron_runtime_data[{runtime.get('pid')}]: {runtime['error']}")
        report = _mapping(runtime.get("report"))
        complaints += _complaints(report)
        stats = _mapping(report.get("execution_stats"))
        for kind in ERROR_KINDS:
            errors[kind] += count(_mapping(stats.get("error_summary")).get(kind))
        timed_out += count(_mapping(stats.get("execution_summary")).get("timed_out"))
        used_bytes = _mapping(_mapping(report.get("memory_used")).get("neuron_runtime_used_bytes"))
        memory += count(used_bytes.get("neuron_device"))
        cores = _mapping(_mapping(report.get("neuroncore_counters")).get("neuroncores_in_use"))
        used += [
            float(core["neuroncore_utilization"])
            for core in cores.values()
            if is_number(_mapping(core).get("neuroncore_utilization"))
        ]
    system = _mapping(document.get("system_data"))
    complaints += _complaints(system)
    counters = _mapping(system.get("neuron_hw_counters"))
    devices = count(hardware.get("neuron_device_count"))
    return Reading(
        source=MONITOR,
        at=at,
        devices=devices,
        cores_per_device=count(hardware.get("neuroncore_per_device_count")),
        runtimes=len(runtimes),
        errors=errors,
        timed_out=timed_out,
        ecc={
            count(device.get("neuron_device_index")): sum(count(device.get(name)) for name in UNCORRECTED)
            for device in map(_mapping, _list(counters.get("neuron_devices")))
        },
        utilization_percent=sum(used) / len(used) if used else None,
        memory_bytes=memory,
        memory_total_bytes=devices * count(hardware.get("neuron_device_memory_size")),
        complaints=tuple(complaints),
    )


def parse_reports(output: str, at: float = 0.0) -> list[Reading]:
    """All reports of an output; lines that are none are skipped.

    at: when the last one was read; the others were made a second (CONFIG's period) apart before it.
    """
    lines = [line for line in output.splitlines() if parse_report(line) is not None]
    found = [parse_report(line, at - (len(lines) - 1 - place)) for place, line in enumerate(lines)]
    return [reading for reading in found if reading is not None]


def _complaints(groups: Mapping[str, Any]) -> list[str]:
    """Every group that says an error: it has no numbers to trust."""
    return [f"{name}: {group['error']}" for name, group in groups.items() if _mapping(group).get("error")]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
