"""From a folder to a running supervisor: lock, ports, files, then `Supervisor.run`."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import catalogue, environment, leftovers, ports
from .home import Home, Secrets, write_private
from .service import select
from .services.setting import PAIRED, PORTS, Setting
from .supervisor import Supervisor

MINIMUM_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Request:
    """What `up` was asked for."""

    home: Home
    only: tuple[str, ...] = ()
    kubeconfig: Path | None = None
    pod_cidr: str = ""
    more_dags: tuple[Path, ...] = ()


class AlreadyRunning(Exception):
    """Another supervisor holds this home."""


class NotPossible(Exception):
    """The machine does not allow a start; says what to change."""


@contextmanager
def lock(home: Home) -> Iterator[None]:
    """Hold the home for as long as this process lives: the kernel lets go of it however the process ends.

    Raises AlreadyRunning.
    """
    with home.lock_file.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AlreadyRunning(home.root) from error
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def supervisor_pid(home: Home) -> int | None:
    """Pid of the supervisor that holds this home; None when nobody does."""
    try:
        with home.lock_file.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(file.read().strip() or 0) or None
    except FileNotFoundError:
        pass
    return None


def prepare(request: Request) -> Setting:
    """Choose ports, make secrets, write the environment files.

    Raises NotPossible, ports.NoFreePort, OSError.
    """
    home = request.home
    if (free := shutil.disk_usage(home.root).free) < MINIMUM_FREE_BYTES:
        raise NotPossible(
            f"{home.root} has {free >> 20} MiB of free disk, the stack needs {MINIMUM_FREE_BYTES >> 20}: "
            "make room, or choose another folder with --home"
        )
    remembered = home.root / "ports.json"
    chosen = ports.choose(PORTS, ports.read(remembered), paired=PAIRED, seed=int(home.id, 16))
    remembered.write_text(json.dumps(chosen, indent=2) + "\n")
    setting = Setting(
        home=home,
        secrets=Secrets.of(home),
        ports=chosen,
        kubeconfig=request.kubeconfig or home.kubeconfig,
        api_server=server_of(request.kubeconfig)
        if request.kubeconfig
        else f"https://{ports.HOST}:{chosen['apiserver']}",
        own_control_plane=request.kubeconfig is None,
        pod_cidr=request.pod_cidr,
        more_dags=request.more_dags,
    )
    write_private(home.env_file, environment.render(environment.for_clients(setting, os.environ)))
    write_private(home.pod_identity_file, environment.render(environment.for_pods(setting)))
    return setting


def server_of(kubeconfig: Path) -> str:
    """Address of the current context's API server; raises NotPossible when the file does not say."""
    import yaml

    try:
        config = yaml.safe_load(kubeconfig.read_text())
        contexts = {entry["name"]: entry["context"] for entry in config["contexts"]}
        clusters = {entry["name"]: entry["cluster"] for entry in config["clusters"]}
        server = str(clusters[contexts[config["current-context"]]["cluster"]]["server"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise NotPossible(
            f"--kubeconfig {kubeconfig}: no current context with a cluster ({error!r})"
        ) from error
    if not urlsplit(server).hostname:
        raise NotPossible(f"--kubeconfig {kubeconfig}: {server!r} is no address")
    return server


def run(request: Request, on_change: Callable[[dict[str, Any]], None] = lambda state: None) -> None:
    """Start the stack and stay until a signal comes; then everything is stopped.

    Raises AlreadyRunning, StartFailed, and what `prepare` raises.
    """
    request.home.create()
    with lock(request.home):
        leftovers.sweep(request.home)  # of a supervisor that was killed; our ports are free after that
        setting = prepare(request)
        clients = environment.parse(setting.home.env_file.read_text())
        children = environment.for_children(setting, clients, os.environ)
        # Steps of ours use the same clients with the same environment as everybody else.
        parts = select(catalogue.parts(setting, children), request.only)
        asyncio.run(_run(Supervisor(setting.home, parts, children, catalogue.facts(setting), on_change)))


async def _run(supervisor: Supervisor) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stop)
    await supervisor.run()
