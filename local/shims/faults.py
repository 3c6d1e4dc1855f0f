"""The fault knobs, read from LOCAL_FAULTS (a pod's annotation `local.trainyard.dev/faults`)."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Faults:
    """What is wrong in this container; nothing by default.

    slow             factor on time to first token and inter-token time
    never_ready      the server starts and answers /health, a generation never ends
    crash_on_start   the server dies while it starts, with this message
    error_rate       share of requests answered with 500
    cut_rate         share of streams that are cut
    compile_exit     exit code of the compiler, after it has written its log
    compile_seconds  time that all compilations of a model take together
    compile_until    path of a file: no compilation ends before it is there
    oom_mib          memory that the process really takes
    recompile        the server ignores its artifacts and compiles
    ecc_uncorrected  new uncorrected ECC events a second, of the first device
    neuron_error     kind of the errors in neuron-monitor's error_summary
    monitor_silent   neuron-monitor runs and reports nothing
    """

    slow: float = 1.0
    never_ready: bool = False
    crash_on_start: str = ""
    error_rate: float = 0.0
    cut_rate: float = 0.0
    compile_exit: int = 0
    compile_seconds: float | None = None
    compile_until: str = ""
    oom_mib: int = 0
    recompile: bool = False
    ecc_uncorrected: int = 0
    neuron_error: str = ""
    monitor_silent: bool = False


def faults(environment: Mapping[str, str] | None = None) -> Faults:
    """The knobs that are set. A knob that does not exist ends the process: a fault that is silently not
    injected would make a test pass for the wrong reason."""
    given = os.environ if environment is None else environment
    content = json.loads(given.get("LOCAL_FAULTS") or "{}")
    known = {field.name for field in fields(Faults)}
    unknown = sorted(set(content) - known)
    if unknown:
        sys.exit(f"LOCAL_FAULTS: unknown knob {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return Faults(**content)


def take_memory(mib: int) -> list[bytes]:
    """Really take `mib` MiB, in steps that a memory limit can catch; keep the result to keep the memory."""
    taken: list[bytes] = []
    for _ in range(0, mib, 32):
        taken.append(b"\1" * (32 * 1024 * 1024))  # written, not zero pages
        time.sleep(0.02)
    if taken:
        # Whoever enforces the limit may look once a second only.
        time.sleep(5)
    return taken
