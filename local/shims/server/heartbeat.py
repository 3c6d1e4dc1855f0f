"""What the runtime of a serving process tells neuron-monitor: a small file in the container's TMPDIR.

On a node the monitor asks the driver; here server and monitor share the container's TMPDIR. Utilization is the
share of time that the engine was in a step, latency the time of a step.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from local.shims.server.engine import Engine

PERIOD_SECONDS = 1.0
PATTERN = "neuron-runtime-*.json"


def state_file(pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"neuron-runtime-{pid}.json"


def write_state(content: dict[str, object]) -> None:
    """Replace this process's state."""
    path = state_file(os.getpid())
    staged = path.with_suffix(".tmp")
    staged.write_text(json.dumps(content | {"pid": os.getpid(), "written": time.time()}))
    staged.replace(path)


async def beat(engine: Engine, *, cores: int, device_bytes: int, errors: str) -> None:
    """Write the state every second, for ever. `errors` is the kind of execution errors to report."""
    tag = os.environ.get("NEURON_PROCESS_TAG", str(os.getpid()))
    busy, steps, began = 0.0, 0, time.monotonic()
    failed = 0
    while True:
        elapsed = time.monotonic() - began
        latencies = sorted(engine.step_seconds)
        engine.step_seconds.clear()
        failed += 1 if errors else 0
        write_state(
            {
                "tag": tag,
                "cores": cores,
                "utilization": round(100 * min((engine.busy_seconds - busy) / elapsed, 1.0), 2) if elapsed else 0.0,
                "completed": engine.steps - steps,
                "errors": {errors: 1} if errors else {},
                "latencies": latencies,
                "device_bytes": device_bytes,
                "host_bytes": 64 * 1024 * 1024,
            }
        )
        busy, steps, began = engine.busy_seconds, engine.steps, time.monotonic()
        await asyncio.sleep(PERIOD_SECONDS)
