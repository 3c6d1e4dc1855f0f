"""Finds and ends the processes of a stack, also when its supervisor is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

from .home import MARKER, Home

GRACE_SECONDS = 2.5
POLL_SECONDS = 0.05


def marked(home: Home) -> list[psutil.Process]:
    """Processes that carry this home's marker, but for the one that asks and its ancestors.

    Environments of other users' processes cannot be read: only root sees those, and only root started them.
    """
    line = f"{MARKER}={home.id}".encode()
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        with suppress(OSError, psutil.Error):
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                if line in file.read().split(b"\0") and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def in_session(leader: int) -> list[psutil.Process]:
    """Processes of the session that `leader` founded; it may be gone already."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended. A zombie has: in a container often nobody reaps what lost its parent."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end(processes: Iterable[psutil.Process], *, grace: float = GRACE_SECONDS) -> None:
    """Ask, wait, then kill; returns when all are gone. PostgreSQL is asked by SIGINT, its fast shutdown."""
    alive = list(processes)
    for process in alive:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
    alive = _wait(alive, grace)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    _wait(alive, grace)


def _wait(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that are still there after so long."""
    deadline = time.monotonic() + seconds
    while (
        alive := [process for process in processes if not is_gone(process)]
    ) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return alive


def sweep(home: Home) -> int:
    """End everything that carries the marker; returns how many processes that were.

    Repeats, since a process may have forked between the look and the kill.
    """
    count = 0
    deadline = time.monotonic() + 30
    while (found := marked(home)) and time.monotonic() < deadline:
        count += len(found)
        end(found)
    return count
