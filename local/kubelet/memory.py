"""Memory limits: resident memory of process trees, polled in one loop for all that have a limit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import psutil

from local.kubelet.process import Process

PERIOD = 0.25
"""Seconds between two looks."""


def resident(pid: int) -> int:
    """Bytes of resident anonymous memory of a process and its descendants; 0 when it is gone."""
    total, todo = 0, [pid]
    page = os.sysconf("SC_PAGE_SIZE")
    while todo:
        one = todo.pop()
        folder = Path(f"/proc/{one}")
        try:
            # Without what is backed by files: a mapped checkpoint is page cache, which the kernel can drop.
            resident_pages, shared_pages = (folder / "statm").read_text().split()[1:3]
            total += (int(resident_pages) - int(shared_pages)) * page
            # The kernel lists children by the thread that made them; this costs a few reads where psutil's
            # children() reads the whole process table.
            for task in os.listdir(folder / "task"):
                todo.extend(int(child) for child in (folder / "task" / task / "children").read_text().split())
        except FileNotFoundError:
            if one == pid and not (folder / "task").exists():
                return _portable(pid)
        except OSError:
            continue
    return total


def _portable(pid: int) -> int:
    try:
        root = psutil.Process(pid)
        return sum(each.memory_info().rss for each in [root, *root.children(recursive=True)])
    except psutil.Error:
        return 0


class MemoryWatch:
    """Calls back once for each watched process that outgrows its limit."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[Process, int, Callable[[], None]]] = {}
        self._added = asyncio.Event()
        self._machine = psutil.virtual_memory().total

    def watch(self, process: Process, limit: int, exceeded: Callable[[], None]) -> None:
        """Watch until the process ends; a limit above the machine's memory needs no look."""
        if limit < self._machine:
            self._watched[process.pid] = (process, limit, exceeded)
            self._added.set()

    async def run(self) -> None:
        while True:
            if not self._watched:
                self._added.clear()
                await self._added.wait()
            for pid, (process, limit, exceeded) in list(self._watched.items()):
                if not process.alive:
                    del self._watched[pid]
                elif resident(pid) > limit:
                    del self._watched[pid]
                    exceeded()
            await asyncio.sleep(PERIOD)
