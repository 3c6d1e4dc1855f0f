"""Reads neuron-monitor's JSON and says whether the devices are well. Silence is never healthy.

Source: neuron-monitor of SDK 2.32: one report a line; every group carries `period` and `error`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_ERROR_KINDS = ("generic", "numerical", "transient", "model", "runtime", "hardware")
_LARGEST = 2**63
_ECC = ("mem_ecc_uncorrected", "sram_ecc_uncorrected")


@dataclass(frozen=True)
class Report:
    """One report. errors: counts since the runtime started, by kind; ecc: uncorrected events by device
    index."""

    devices: int
    cores_per_device: int
    runtimes: int
    errors: Mapping[str, int]
    timed_out: int
    ecc: Mapping[int, int]
    utilization_percent: float | None
    device_memory_bytes: int
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Health:
    """state: healthy, sick or unknown. Only healthy lets a release go on."""

    state: str
    reasons: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def parse_report(line: str) -> Report | None:
    """One line of output -> a report; None where the line is no report (a torn line, a log message)."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or "neuron_hardware_info" not in document:
        return None
    hardware = _mapping(document.get("neuron_hardware_info"))
    complaints = [f"neuron_hardware_info: {hardware['error']}"] if hardware.get("error") else []
    errors = dict.fromkeys(_ERROR_KINDS, 0)
    timed_out, memory, used = 0, 0, []
    runtimes = [_mapping(item) for item in _list(document.get("neuron_runtime_data"))]
    for runtime in runtimes:
        if runtime.get("error"):
            complaints.append(f"neuron_runtime_data[{runtime.get('pid')}]: {runtime['error']}")
        report = _mapping(runtime.get("report"))
        for name, group in report.items():
            if _mapping(group).get("error"):
                complaints.append(f"{name}: {group['error']}")
        stats = _mapping(report.get("execution_stats"))
        for kind in _ERROR_KINDS:
            errors[kind] += _count(_mapping(stats.get("error_summary")).get(kind))
        timed_out += _count(_mapping(stats.get("execution_summary")).get("timed_out"))
        used_bytes = _mapping(_mapping(report.get("memory_used")).get("neuron_runtime_used_bytes"))
        memory += _count(used_bytes.get("neuron_device"))
        cores = _mapping(_mapping(report.get("neuroncore_counters")).get("neuroncores_in_use"))
        used += [
            float(core["neuroncore_utilization"])
            for core in cores.values()
            if _is_number(_mapping(core).get("neuroncore_utilization"))
        ]
    counters = _mapping(_mapping(document.get("system_data")).get("neuron_hw_counters"))
    if counters.get("error"):
        complaints.append(f"neuron_hw_counters: {counters['error']}")
    ecc = {
        _count(device.get("neuron_device_index")): sum(_count(device.get(name)) for name in _ECC)
        for device in map(_mapping, _list(counters.get("neuron_devices")))
    }
    return Report(
        devices=_count(hardware.get("neuron_device_count")),
        cores_per_device=_count(hardware.get("neuroncore_per_device_count")),
        runtimes=len(runtimes),
        errors=errors,
        timed_out=timed_out,
        ecc=ecc,
        utilization_percent=sum(used) / len(used) if used else None,
        device_memory_bytes=memory,
        complaints=tuple(complaints),
    )


def parse_reports(output: str) -> list[Report]:
    """All reports of an output; lines that are none are skipped."""
    return [report for report in map(parse_report, output.splitlines()) if report is not None]


def judge_health(reports: Iterable[Report], expected_devices: int) -> Health:
    """Compares the first report's ECC counters with the last's: totals may hold old sins, deltas may not.

    Execution errors are counted from report to report, so those of every report count.
    """
    seen = list(reports)
    if len(seen) < 2:
        return Health("unknown", (f"neuron-monitor gave {len(seen)} report(s), two are needed",))
    first, last = seen[0], seen[-1]
    reasons = list(dict.fromkeys(complaint for report in seen for complaint in report.complaints))
    unknown: list[str] = []
    if last.devices < expected_devices:
        reasons.append(f"{last.devices} Neuron devices are visible, the pod asked for {expected_devices}")
    if not last.ecc:
        unknown.append("no hardware counters were reported")
    elif len(last.ecc) < expected_devices or not first.ecc.keys() <= last.ecc.keys():
        unknown.append(f"hardware counters were reported of {len(last.ecc)} device(s) only")
    if last.runtimes == 0:
        unknown.append("no Neuron runtime is running: the server is not on the devices")
    for device, count in sorted(last.ecc.items()):
        before = first.ecc.get(device, 0)
        if count > before:
            reasons.append(f"device {device}: {count - before} new uncorrected ECC error(s)")
        elif count < before:
            unknown.append(f"device {device}: its ECC counter went back from {before} to {count}")
    worst = {kind: max(report.errors[kind] for report in seen) for kind in _ERROR_KINDS}
    for kind in ("hardware", "runtime", "numerical"):
        if worst[kind] > 0:
            reasons.append(f"{worst[kind]} {kind} error(s) in the Neuron runtime")
    timed_out = max(report.timed_out for report in seen)
    if timed_out > 0:
        reasons.append(f"{timed_out} execution(s) timed out")
    facts = {
        "devices": last.devices,
        "reports": len(seen),
        "device_memory_bytes": last.device_memory_bytes,
        "utilization_percent": last.utilization_percent,
        "ecc_uncorrected": sum(last.ecc.values()),
        "errors": worst,
    }
    if reasons:
        return Health("sick", tuple(reasons), facts)
    if unknown:
        return Health("unknown", tuple(unknown), facts)
    return Health("healthy", (), facts)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int:
    return int(value) if _is_number(value) else 0


def _is_number(value: Any) -> bool:
    """Finite, and small enough for a float: JSON has neither limit, and Python reads NaN and Infinity too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST
