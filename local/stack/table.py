"""`status` for people."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from .home import Home

COLOURS = {"ready": "green", "done": "green", "restarting": "red", "failed": "red", "starting": "yellow"}


def memory(pid: int | None) -> int:
    """Bytes of a process and its children that no other process shares; 0 when it is gone.

    Proportional where the kernel says it, since Airflow's forks share most of their pages.
    """
    if not pid:
        return 0
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                full = member.memory_full_info()
                total += getattr(full, "pss", 0) or full.uss
    return total


def show(home: Home, state: dict[str, Any], console: Console | None = None) -> None:
    console = console or Console()
    table = Table("service", "state", "pid", "restarts", "memory", "address", box=None, pad_edge=False)
    whole = 0
    for name, unit in state.get("services", {}).items():
        alive = state["state"] in ("ready", "starting", "stopping")
        used = memory(unit["pid"]) if alive else 0
        whole += used
        shown = unit["state"] if alive or unit["state"] == "done" else "stopped"
        table.add_row(
            name,
            f"[{COLOURS.get(shown, 'default')}]{shown}[/]",
            str(unit["pid"] or "") if alive else "",
            str(unit["restarts"] or ""),
            f"{used / 2**20:.0f} MiB" if used else "",
            unit["address"] or unit.get("remark", ""),
        )
    console.print(f"{home.root}: {state['state']}")
    if table.row_count:
        console.print(table)
        console.print(f"{whole / 2**20:.0f} MiB in all; logs: logs/SERVICE.log below the folder above")
