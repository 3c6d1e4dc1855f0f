"""Looks at processes that may end, or have ended, in the very moment."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import psutil

from local.stack.leftovers import is_gone

PATIENCE_SECONDS = 60.0


def processes(pids: Iterable[int]) -> list[psutil.Process]:
    """Those that are there. By their start, too: a number that another process gets is not taken for it."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def left_of(those: Iterable[psutil.Process], seconds: float = PATIENCE_SECONDS) -> list[psutil.Process]:
    """Who has not ended after so long. Whoever was sent a SIGKILL runs on until the kernel gets to it."""
    end, left = time.monotonic() + seconds, list(those)
    while (left := [one for one in left if not is_gone(one)]) and time.monotonic() < end:
        time.sleep(0.01)
    return left


def stop(process: subprocess.Popen[Any], seconds: float = PATIENCE_SECONDS) -> None:
    """Asks it to end, and kills it where it does not."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill_whole(pid: int) -> list[psutil.Process]:
    """As a node that is gone: the process and all it started, at once, without a word. Who that was."""
    family = processes([pid])
    for one in family[:1]:
        with suppress(psutil.NoSuchProcess):
            family += one.children(recursive=True)
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    return family
