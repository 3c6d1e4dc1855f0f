"""What the runtime of a serving process tells neuron-monitor: a small file in the container's TMPDIR.

On a node the monitor asks the driver; here server and monitor share the container's TMPDIR. Counts and
seconds are totals since the start, so that a monitor of any period can take differences; latencies are those
of the steps since the last beat.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from local.shims.server.engine import Engine

PERIOD_SECONDS = 0.5
STALE_SECONDS = 5.0
STATE_FILES = "neuron-runtime-*.json"


def state_file(pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"neuron-runtime-{pid}.json"


def read_states() -> list[dict[str, Any]]:
    """The states of the serving processes that are alive, by pid."""
    found = []
    for path in sorted(Path(tempfile.gettempdir()).glob(STATE_FILES)):
        # A file may go, or its process die without removing it, at any time.
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(path.read_text())
            if psutil.pid_exists(state["pid"]) and time.time() - state["written"] < STALE_SECONDS:
                found.append(state)
    return found


async def beat(engine: Engine, *, cores: int, device_bytes: int, errors: str) -> None:
    """Write the state twice a second, for ever. `errors` is the kind of execution errors to report."""
    path = state_file(os.getpid())
    process = psutil.Process()
    tag = os.environ.get("NEURON_PROCESS_TAG", str(os.getpid()))
    failed = 0
    while True:
        latencies = sorted(engine.step_seconds)
        engine.step_seconds.clear()
        failed += 1 if errors else 0
        state = {
            "pid": os.getpid(),
            "written": time.time(),
            "tag": tag,
            "cores": cores,
            "busy_seconds": engine.busy_seconds,
            "completed": engine.steps,
            "errors": {errors: failed} if errors else {},
            "latencies": latencies,
            "device_bytes": device_bytes,
            "host_bytes": process.memory_info().rss,
            "cpu_seconds": list(process.cpu_times()[:2]),
        }
        staged = path.with_suffix(".tmp")
        staged.write_text(json.dumps(state))
        staged.replace(path)
        await asyncio.sleep(PERIOD_SECONDS)
