"""`neuron-monitor`: one JSON report a line, a period apart, in the schema of neuron.md, 4."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import psutil

from local.shims.faults import Faults, faults
from local.shims.server.heartbeat import read_states
from local.shims.silicon import Silicon, silicon

Json = dict[str, Any]
DEFAULT_CONFIG: Json = {
    "period": "5s",
    "neuron_runtimes": [
        {
            "tag_filter": ".*",
            "metrics": [
                {"type": "neuroncore_counters"},
                {"type": "memory_used"},
                {"type": "neuron_runtime_vcpu_usage"},
                {"type": "execution_stats"},
            ],
        }
    ],
    "system_metrics": [{"type": "vcpu_usage"}, {"type": "memory_info"}, {"type": "neuron_hw_counters"}],
}
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
ERROR_KINDS = ("generic", "numerical", "transient", "model", "runtime", "hardware")
PERCENTILES = (0, 1, 25, 50, 75, 99, 100)
RUNTIME_GROUPS = ("neuroncore_counters", "memory_used", "neuron_runtime_vcpu_usage", "execution_stats")
SYSTEM_GROUPS = ("vcpu_usage", "memory_info", "neuron_hw_counters")


def seconds(text: str) -> float:
    """ "1s", "500ms" as seconds; raises ValueError for what is no duration."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if match is None:
        raise ValueError(f'time: invalid duration "{text}"')
    return float(match[1]) * UNITS[match[2]]


def read_config(path: Path | None) -> Json:
    """The configuration file, or the default; ends the process when it is wrong, as the real one does."""
    if path is None:
        return DEFAULT_CONFIG
    try:
        content: Json = json.loads(path.read_text())
        seconds(content.get("period", "5s"))
        for runtime in content.get("neuron_runtimes", ()):
            re.compile(runtime.get("tag_filter", ".*"))
            _known([metric["type"] for metric in runtime.get("metrics", ())], RUNTIME_GROUPS)
        _known([metric["type"] for metric in content.get("system_metrics", ())], SYSTEM_GROUPS)
    except (OSError, ValueError, KeyError, re.error) as error:
        sys.exit(f"neuron-monitor: could not read the configuration {path}: {error}")
    return content


def _known(types: list[str], known: tuple[str, ...]) -> None:
    for name in types:
        if name not in known:
            raise ValueError(f"unknown metric type {name!r}, expected one of {', '.join(known)}")


def runtime_report(state: Json, before: Json, groups: list[str], period: float, devices: Silicon) -> Json:
    """One entry of `neuron_runtime_data`: differences between two states of a serving process."""
    used = state["busy_seconds"] - before.get("busy_seconds", 0.0)
    share = round(100 * min(used / period, 1.0), 2)
    first = min(devices.devices, default=0) * devices.cores_per_device
    cores = [str(first + index) for index in range(state["cores"])]
    earlier: list[float] = before.get("cpu_seconds") or state["cpu_seconds"]
    made = {
        "neuroncore_counters": {
            "neuroncores_in_use": {
                core: {"neuroncore_utilization": share, "flops": int(used * 1e12), "v3d": None}
                for core in cores
            }
        },
        "memory_used": _memory(state, cores),
        "neuron_runtime_vcpu_usage": {
            "vcpu_usage": {
                name: round(100 * max(now - then, 0.0) / period, 2)
                for name, now, then in zip(("user", "system"), state["cpu_seconds"], earlier, strict=True)
            }
        },
        "execution_stats": _executions(state, before),
    }
    report = {name: {"period": period, **made[name], "error": ""} for name in groups}
    return {"pid": state["pid"], "neuron_runtime_tag": state["tag"], "error": "", "report": report}


def _memory(state: Json, cores: list[str]) -> Json:
    each = state["device_bytes"] // max(len(cores), 1)
    parts = {"constants": 0, "model_code": each // 20, "model_shared_scratchpad": 0, "runtime_memory": 0}
    parts["tensors"] = each - sum(parts.values())
    host = state["host_bytes"]
    return {
        "neuron_runtime_used_bytes": {
            "host": host,
            "neuron_device": state["device_bytes"],
            "usage_breakdown": {
                "host": {"application_memory": host, "constants": 0, "dma_buffers": 0, "tensors": 0},
                "neuroncore_memory_usage": dict.fromkeys(cores, parts),
            },
        },
        "loaded_models": [
            {
                "name": name,
                "uuid": f"{state['pid']:032x}",
                "model_id": number,
                "is_running": True,
                "memory_used_bytes": {"host": 0, "neuron_device": state["device_bytes"] // 2},
            }
            for number, name in enumerate(("context_encoding_model", "token_generation_model"), start=1)
        ],
    }


def _executions(state: Json, before: Json) -> Json:
    """Counts since the last report; latencies are null when nothing was executed."""
    completed = state["completed"] - before.get("completed", 0)
    errors = {
        kind: state["errors"].get(kind, 0) - before.get("errors", {}).get(kind, 0) for kind in ERROR_KINDS
    }
    latencies = state["latencies"] if completed else []
    found = None
    if latencies:
        found = {f"p{p}": round(latencies[round(p / 100 * (len(latencies) - 1))], 6) for p in PERCENTILES}
    return {
        "error_summary": errors,
        "execution_summary": {
            "completed": completed,
            "completed_with_err": sum(errors.values()),
            "completed_with_num_err": errors["numerical"],
            "timed_out": 0,
            "incorrect_input": 0,
            "failed_to_queue": 0,
        },
        "latency_stats": {"total_latency": found, "device_latency": found},
    }


def system_report(groups: list[str], period: float, devices: Silicon, knobs: Faults) -> Json:
    """`system_data` of the node; hardware counters are totals since the driver was loaded."""
    uncorrected = ecc_events(knobs.ecc_uncorrected)
    memory, swap, cpu = psutil.virtual_memory(), psutil.swap_memory(), psutil.cpu_times_percent()
    made: Json = {
        "vcpu_usage": {
            "average_usage": {
                "user": cpu.user,
                "nice": cpu.nice,
                "system": cpu.system,
                "idle": cpu.idle,
                "io_wait": cpu.iowait,
                "irq": cpu.irq,
                "soft_irq": cpu.softirq,
            }
        },
        "memory_info": {
            "memory_total_bytes": memory.total,
            "memory_used_bytes": memory.used,
            "swap_total_bytes": swap.total,
            "swap_used_bytes": swap.used,
        },
        "neuron_hw_counters": {
            "neuron_devices": [
                {
                    "neuron_device_index": device,
                    "mem_ecc_corrected": 0,
                    "mem_ecc_uncorrected": uncorrected if device == devices.devices[0] else 0,
                    "sram_ecc_corrected": 0,
                    "sram_ecc_uncorrected": 0,
                }
                for device in devices.devices
            ]
        },
    }
    return {name: {"period": period, **made[name], "error": ""} for name in groups}


def ecc_events(each_second: int) -> int:
    """Total of a counter that grows: gates look at differences, since old totals say nothing about now.

    A marker in TMPDIR keeps the beginning, so that it never falls between two runs of the monitor.
    """
    if not each_second:
        return 0
    marker = Path(tempfile.gettempdir()) / "neuron-ecc-began"
    if not marker.exists():
        marker.touch()
    return each_second * max(math.ceil(time.time() - marker.stat().st_mtime), 0)


def hardware_info(devices: Silicon) -> Json:
    """`neuron_hardware_info`; without devices it carries the error that a gate must see."""
    kinds = {
        "trn2": ("trainium2", "v4", "v3"),
        "trn1": ("trainium", "v3", "v2"),
        "inf2": ("inferentia", "v3", "v2"),
    }
    kind, device_version, core_version = kinds.get(devices.family.rstrip("nu"), ("", "", ""))
    return {
        "neuron_device_type": kind,
        "neuron_device_version": device_version,
        "neuroncore_version": core_version,
        "neuron_device_count": len(devices.devices),
        "neuron_device_memory_size": devices.memory_per_device if devices.present else 0,
        "neuroncore_per_device_count": devices.cores_per_device if devices.present else 0,
        "logical_neuroncore_config": devices.logical_neuroncore if devices.present else 0,
        "error": "" if devices.present else "unable to find any neuron device",
    }


def instance_info(devices: Silicon) -> Json:
    return {
        "instance_name": devices.node,
        "instance_id": f"i-{abs(hash_text(devices.node)) % 16**17:017x}",
        "instance_type": devices.instance_type,
        "instance_availability_zone": "local-1a",
        "instance_availability_zone_id": "loc1-az1",
        "instance_region": "local-1",
        "ami_id": "ami-00000000000000000",
        "subnet_id": "subnet-00000000000000000",
        "error": "",
    }


def hash_text(text: str) -> int:
    """A number that stays the same from run to run."""
    return zlib.crc32(text.encode()) * 2654435761


def main(argv: list[str] | None = None) -> int:
    """Report until the reader goes away."""
    parser = argparse.ArgumentParser("neuron-monitor")
    parser.add_argument("-c", "--config-file", type=Path)
    parser.add_argument("-v", "--verbose", action="count", default=0)
    given = parser.parse_args(argv)
    config, knobs, devices = read_config(given.config_file), faults(), silicon()
    period = seconds(config.get("period", "5s"))
    psutil.cpu_times_percent()
    before = {state["pid"]: state for state in read_states()}
    ecc_events(knobs.ecc_uncorrected)
    while True:
        time.sleep(period)
        if knobs.monitor_silent:
            continue
        states = read_states()
        runtimes = []
        for runtime in config.get("neuron_runtimes", ()):
            wanted = re.compile(runtime.get("tag_filter", ".*"))
            groups = [metric["type"] for metric in runtime.get("metrics", ())]
            runtimes += [
                runtime_report(state, before.get(state["pid"], {}), groups, period, devices)
                for state in states
                if wanted.search(state["tag"])
            ]
        system = [metric["type"] for metric in config.get("system_metrics", ())]
        report = {
            "neuron_runtime_data": runtimes,
            "system_data": system_report(system, period, devices, knobs),
            "instance_info": instance_info(devices),
            "neuron_hardware_info": hardware_info(devices),
        }
        before = {state["pid"]: state for state in states}
        try:
            print(json.dumps(report, separators=(",", ":")), flush=True)
        except BrokenPipeError:
            # Reading ended, as with `head -1`; the interpreter must not flush into the closed pipe again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
