"""A release as it goes, in the terminal: one line a stage, with what it saw."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trainyard_cli.airflow_api import ENDED, Airflow, ApiError

_DAG = "model_release"
_ORDER = (
    "plan", "fetch_model", "check_capacity", "compile", "compile_node", "publish", "canary", "canary_node",
    "canary_ready", "device_health", "warm_up", "load_test", "judge", "step_1", "step_2", "step_3", "step_4",
    "promote", "drain_previous", "roll_back", "record",
)  # fmt: skip
_LOOK = {
    "success": ("✓", "green"), "failed": ("✗", "bold red"), "running": ("▶", "cyan"),
    "deferred": ("…", "cyan"),
    "skipped": ("·", "dim"), "upstream_failed": ("-", "dim"), "up_for_retry": ("↻", "yellow"),
    "queued": ("◦", "cyan"), "scheduled": ("◦", "cyan"),
}  # fmt: skip

Record = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a run ended. record: the ledger's, where it can be read."""

    run_id: str
    state: str
    record: Record | None
    seconds: float
    tasks: dict[str, str]


def follow(
    airflow: Airflow,
    run_id: str,
    console: Console,
    *,
    read_record: Callable[[str], Record | None],
    title: str = "",
    timeout: float = 3600.0,
    interval: float = 0.7,
) -> Ended:
    """Shows a run until it ends. Raises TimeoutError.

    read_record: the release's record by run id, as soon as there is one.
    """
    begun = time.monotonic()
    seen: dict[str, str] = {}
    # Without a terminal a picture that moves would be a pile of pictures: lines tell of what ended.
    picture = Live(console=console, refresh_per_second=4) if console.is_terminal else contextlib.nullcontext()
    with picture as live:
        while True:
            passed = time.monotonic() - begun
            try:
                run = airflow.run(_DAG, run_id)
                tasks = {item["task_id"]: item for item in airflow.tasks(_DAG, run_id)}
            except (httpx.TransportError, ApiError) as error:
                # The run goes on without its API server: that may be restarted meanwhile.
                if passed > timeout or (isinstance(error, ApiError) and error.status < 500):
                    raise
                time.sleep(interval)
                continue
            record = read_record(run_id)
            if live is not None:
                live.update(render(title or run_id, run.state, tasks, record, passed))
            else:
                _say_changes(console, tasks, record, seen)
            if run.state in ENDED:
                states = {name: str(item["state"]) for name, item in tasks.items()}
                return Ended(run_id, run.state, record, passed, states)
            if passed > timeout:
                raise TimeoutError(
                    f"{run_id} has not ended in {timeout:.0f} s; see {airflow.url}/dags/{_DAG}"
                )
            time.sleep(interval)


def render(
    title: str, state: str, tasks: dict[str, Any], record: Record | None, seconds: float
) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 1), expand=True)
    table.add_column(width=1)
    table.add_column(width=15, no_wrap=True)
    table.add_column(width=7, justify="right", no_wrap=True)
    table.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
    stages = (record or {}).get("stages", {})
    for name in _ORDER:
        task = tasks.get(name)
        if task is None:
            continue
        mark, style = _LOOK.get(str(task["state"]), (" ", "dim"))
        note = stages.get(name, {}).get("note", "")
        took = task.get("duration")
        table.add_row(
            Text(mark, style),
            Text(name, style),
            f"{took:.1f} s" if took else "",
            Text(note.split("\n")[0], "default"),
        )
    head = Text.assemble((title, "bold"), f"  {state}  {seconds:.0f} s")
    return Group(head, table, _traffic(record))


def _traffic(record: Record | None) -> Text:
    weights = (record or {}).get("weights") or []
    if not weights:
        return Text("")
    now = weights[-1]["percent"]
    text = Text("  traffic  ")
    for release, percent in sorted(now.items(), key=lambda item: -item[1]):
        mine = release == (record or {}).get("id")
        text.append("█" * max(1, percent // 4), "green" if mine else "blue")
        text.append(f" {release} {percent} %  ")
    return text


def _say_changes(
    console: Console, tasks: dict[str, Any], record: Record | None, seen: dict[str, str]
) -> None:
    """Without a terminal: a line for each stage that ended, instead of a picture that moves."""
    stages = (record or {}).get("stages", {})
    for name in _ORDER:
        state = str((tasks.get(name) or {}).get("state"))
        if state in ("success", "failed", "skipped") and seen.get(name) != state:
            seen[name] = state
            note = stages.get(name, {}).get("note", "").split("\n")[0]
            console.print(
                f"  {_LOOK[state][0]} {name:<15} {note}", highlight=False, soft_wrap=True, markup=False
            )
