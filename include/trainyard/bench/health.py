"""Was the load generator itself fast enough? If not, its figures say nothing about a server."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.bench.samples import Sample
from trainyard.bench.stamps import stamps
from trainyard.bench.summary import quantile

TICK_SECONDS = 0.01
MAX_CLOCK_STEP_SECONDS = 0.001
SCHEDULED = Path("/proc/self/schedstat")  # nanoseconds of the first thread: on a core, and waiting for one


@dataclass
class Lag:
    """Sleeps of a known length: what they take longer is how late the event loop comes to anything."""

    sleep: Callable[[float], object]
    late: list[float] = field(default_factory=list)
    cpu: float = field(default_factory=time.process_time)
    wall: float = field(default_factory=time.monotonic)
    waited: float = field(default_factory=lambda: waited())

    def run(self) -> None:
        """Forever, in a greenlet or thread of its own."""
        while True:
            before = time.monotonic()
            self.sleep(TICK_SECONDS)
            self.late.append(max(0.0, time.monotonic() - before - TICK_SECONDS))

    def restart(self) -> None:
        """Forget what was before: it begins now."""
        self.late.clear()
        self.cpu, self.wall, self.waited = time.process_time(), time.monotonic(), waited()

    def reading(self) -> dict[str, float]:
        """Since the start: loop_lag_p99_seconds; cpu_share (of one core); waiting_share, of the time in which
        it could have run and had no core; clock_step_seconds (see `stamps`); kernel_stamps, 0 or 1."""
        wall = time.monotonic() - self.wall
        lags = with_missed(self.late)
        return {
            "loop_lag_p99_seconds": round(quantile(sorted(lags), 0.99), 6) if lags else float("inf"),
            "cpu_share": round((time.process_time() - self.cpu) / wall, 4) if wall else 0.0,
            "waiting_share": round((waited() - self.waited) / wall, 4) if wall else 0.0,
            "clock_step_seconds": round(stamps().step(), 6),
            "kernel_stamps": float(stamps().kernel),
            "seconds": round(wall, 3),
        }


def waited() -> float:
    """Seconds that this process's first thread has waited for a core; 0 where the machine does not say."""
    try:
        return int(SCHEDULED.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def with_missed(late: Sequence[float]) -> list[float]:
    """One long stall is one late tick, however much it held up: add the ticks that should have been in it."""
    lags = list(late)
    for lag in late:
        lags += [lag - step * TICK_SECONDS for step in range(1, math.floor(lag / TICK_SECONDS) + 1)]
    return lags


def worst(readings: Sequence[dict[str, float] | None]) -> dict[str, float] | None:
    """Of several generators; None if one of them left no reading."""
    if not readings or any(reading is None for reading in readings):
        return None
    found = [reading for reading in readings if reading is not None]
    figures = {key: max(reading[key] for reading in found) for key in found[0] if key != "scheduled"}
    if "kernel_stamps" in figures:
        figures["kernel_stamps"] = min(reading["kernel_stamps"] for reading in found)
    if "scheduled" in found[0]:
        figures["scheduled"] = sum(reading["scheduled"] for reading in found)
    return figures


def judge_generator(
    reading: dict[str, float] | None, samples: Sequence[Sample], *, max_lag: float, max_cpu_share: float
) -> dict[str, Any]:
    """The generator's part of the summary: its readings, `valid`, and why not."""
    reasons = []
    figures: dict[str, Any] = dict(reading or {})
    lags = sorted(-sample.intended for sample in samples)
    figures["send_lag_p99_seconds"] = round(quantile(lags, 0.99), 6) if lags else None
    sent = len(samples)
    if reading is not None and "scheduled" in reading:  # an open loop
        wanted = reading["scheduled"]
        figures["achieved"] = round(sent / wanted, 6) if wanted else None
        if sent != wanted:
            reasons.append(f"{sent} requests were sent, the schedule has {wanted:.0f}")
        if lags and not quantile(lags, 0.99) <= max_lag:
            late = quantile(lags, 0.99) * 1000
            reasons.append(f"requests were sent {late:.0f} ms late (p99); allowed {max_lag * 1000:.0f} ms")
    if not samples:
        reasons.append("not a single request was sent")
    if reading is None:
        reasons.append("the generator ended without a reading of itself")
    else:
        if not reading["loop_lag_p99_seconds"] <= max_lag:
            figures_ms = reading["loop_lag_p99_seconds"] * 1000
            reasons.append(
                f"its event loop ran {figures_ms:.0f} ms late (p99); allowed {max_lag * 1000:.0f} ms"
            )
        if not reading["cpu_share"] <= max_cpu_share:
            reasons.append(f"it used {reading['cpu_share']:.0%} of a core; allowed {max_cpu_share:.0%}")
        waiting = reading.get("waiting_share", 0.0)
        if reading["cpu_share"] <= max_cpu_share < reading["cpu_share"] + waiting:
            reasons.append(
                f"it ran {reading['cpu_share']:.0%} of the time and waited for a core for {waiting:.0%}; "
                f"allowed {max_cpu_share:.0%} together"
            )
        if reading.get("clock_step_seconds", 0.0) > MAX_CLOCK_STEP_SECONDS:
            step = reading["clock_step_seconds"] * 1000
            reasons.append(f"the machine's wall clock was set by {step:.0f} ms during the run")
    # JSON has no infinity: a reading that is none is written as null.
    figures = {key: None if value == float("inf") else value for key, value in figures.items()}
    return {**figures, "valid": not reasons, "reasons": reasons}
