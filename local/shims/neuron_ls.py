"""`neuron-ls`: the devices of this container and the processes on them, as a table or as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import Any

import psutil

from local.shims.server.heartbeat import read_states
from local.shims.silicon import GIB, silicon


def main(argv: list[str] | None = None) -> int:
    """List; exit code 1 and the real wording when there is no device."""
    parser = argparse.ArgumentParser("neuron-ls")
    parser.add_argument("-j", "--json-output", action="store_true")
    parser.add_argument("-a", "--show-all-procs", action="store_true")
    parser.add_argument("-w", "--wide", action="store_true")
    given = parser.parse_args(argv)
    devices = silicon()
    if not devices.present:
        print("neuron-ls: No neuron device found", file=sys.stderr)
        return 1
    left = {state["pid"]: state["cores"] for state in read_states()}
    listed: list[dict[str, Any]] = []
    for device in devices.devices:
        processes = []
        for pid in [pid for pid, cores in left.items() if cores > 0]:
            used = min(left[pid], devices.cores_per_device)
            left[pid] -= used
            core_ids = [device * devices.cores_per_device + core for core in range(used)]
            processes.append({"pid": pid, "command": _command(pid), "neuron_cores": core_ids})
        listed.append(
            {
                "neuron_device": device,
                "bdf": f"{device:02x}:00.0",
                "connected_to": [other for other in devices.devices if abs(other - device) == 1],
                "nc_count": devices.cores_per_device,
                "logical_neuroncore_config": devices.logical_neuroncore,
                "memory_size": devices.memory_per_device,
                "neuron_processes": processes,
            }
        )
    if given.json_output:
        print(json.dumps(listed, indent=4))
        return 0
    print(f"instance-type: {devices.instance_type}")
    print(f"logical-neuroncore-config: {devices.logical_neuroncore}")
    print("+--------+--------+---------+--------+")
    print("| NEURON | NEURON |  NEURON | PCI    |")
    print("| DEVICE | CORES  |  MEMORY | BDF    |")
    print("+--------+--------+---------+--------+")
    for entry in listed:
        memory = f"{entry['memory_size'] // GIB} GB"
        print(f"| {entry['neuron_device']:<6} | {entry['nc_count']:<6} | {memory:>7} | {entry['bdf']:<6} |")
    print("+--------+--------+---------+--------+")
    return 0


def _command(pid: int) -> str:
    """Empty for a process that ended a moment ago."""
    with contextlib.suppress(psutil.Error):
        return " ".join(psutil.Process(pid).cmdline())
    return ""
