"""What the command line does; each returns an exit status."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

from . import environment, leftovers, service
from .home import MARKER, REPOSITORY, Home
from .launch import AlreadyRunning, Request, run, supervisor_pid
from .supervisor import StartFailed

POLL_SECONDS = 0.15
STOP_SECONDS = 60.0


def say(text: str) -> None:
    print(text, flush=True)


class Progress:
    """Prints a line whenever a part gets ready."""

    def __init__(self, say: Callable[[str], None] = say) -> None:
        self.say = say
        self.seen: dict[str, str] = {}

    def __call__(self, state: dict[str, Any]) -> None:
        for name, unit in state.get("services", {}).items():
            now = unit["state"]
            if now != self.seen.get(name):
                self.seen[name] = now
                if now in ("ready", "done"):
                    words = unit["address"] or unit["remark"]
                    self.say(f"  {name:<18} {now:<6} {unit['seconds']:5.1f} s  {words}".rstrip())
                elif now in ("restarting", "failed"):
                    self.say(f"  {name:<18} {now}, see {unit['log']}")


def up(request: Request) -> int:
    """Start a supervisor of its own session and follow it until all is ready."""
    home = request.home
    home.create()
    if supervisor_pid(home) is None:
        begun = time.monotonic()
        command = [sys.executable, "-m", "local.stack", "supervise", "--home", str(home.root)]
        command += ["--only", ",".join(request.only)] if request.only else []
        command += ["--kubeconfig", str(request.kubeconfig)] if request.kubeconfig else []
        command += ["--pod-cidr", request.pod_cidr] if request.pod_cidr else []
        command += [word for folder in request.more_dags for word in ("--dags", str(folder))]
        home.state_file.unlink(missing_ok=True)
        with home.log("supervisor").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, MARKER: home.id},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        say(f"starting the local stack in {home.root}")
        try:
            code = _follow(home, process.poll)
        except KeyboardInterrupt:
            say("stopping again")
            down(home)
            return 130
        if code == 0:
            say(f"ready after {time.monotonic() - begun:.1f} s")
            _say_addresses(home)
        return code
    code = 0
    if home.read_state().get("state") != "ready":
        say(f"another `up` is at work in {home.root}")
        code = _follow(home, lambda: None if supervisor_pid(home) else 1)
    if code == 0:
        say(f"the local stack in {home.root} is running already")
        _say_addresses(home)
    return code


def _follow(home: Home, ended: Callable[[], int | None]) -> int:
    """Print progress until ready (0) or the supervisor has ended (1)."""
    progress = Progress()
    while True:
        over = ended() is not None
        state = home.read_state()
        progress(state)
        if state.get("state") == "ready" and not over:
            return 0
        if over:
            log = home.log("supervisor")
            words = state.get("error") or "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            print(f"the local stack did not start: {words}", file=sys.stderr)
            return 1
        time.sleep(POLL_SECONDS)


def _say_addresses(home: Home) -> None:
    state = home.read_state()
    running = {unit["address"] for unit in state.get("services", {}).values()}
    for name, address in state.get("endpoints", {}).items():
        if address in running:
            say(f"  {name:<10} {address}")
    with suppress(OSError, ValueError):
        known = json.loads((home.root / "airflow-credentials.json").read_text())
        if known["url"] in running:
            say(f"  Airflow's user is {known['username']}, the password {known['password']}")


def up_in_foreground(request: Request) -> int:
    """Start everything here and stay; Ctrl-C stops everything."""
    progress = Progress()
    said = False

    def follow(state: dict[str, Any]) -> None:
        nonlocal said
        progress(state)
        if state["state"] == "ready" and not said:
            said = True
            _say_addresses(request.home)
            say("ready; Ctrl-C stops everything")

    try:
        run(request, follow)
    except AlreadyRunning:
        say(f"the local stack in {request.home.root} is running already")
    return 0


def supervise(request: Request) -> int:
    """The supervisor's own process; failures also go into `stack.json`, where `up` reads them."""
    try:
        run(request)
    except AlreadyRunning:
        return 0
    except StartFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def down(home: Home, *, wipe: bool = False) -> int:
    """Stop the supervisor, then everything that carries the home's marker."""
    pid = supervisor_pid(home)
    if pid is not None:
        say(f"stopping the local stack in {home.root}")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while supervisor_pid(home) == pid and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        with suppress(psutil.Error):
            leftovers.end([psutil.Process(pid)])  # it lets go of the home shortly before its end
    ended = leftovers.sweep(home)
    if ended:
        say(f"ended {ended} processes that were left")
    if pid is None and not ended:
        say(f"no local stack runs in {home.root}")
    if home.state_file.exists():
        home.state_file.unlink()
    if wipe and home.root.exists():
        # Only what is a stack's home, whatever --home says.
        if not (home.root / "ports.json").exists():
            raise OSError(f"{home.root} is no stack's folder (it has no ports.json): nothing deleted")
        shutil.rmtree(home.root)
        say(f"deleted {home.root}")
    return 0


def status(home: Home, *, as_json: bool = False) -> int:
    """0 when all runs, 3 when not, as `systemctl status` has it."""
    state = home.read_state()
    if supervisor_pid(home) is None:
        state["state"] = "stopped" if not leftovers.marked(home) else "without a supervisor: run `down`"
    if as_json:
        print(json.dumps(state, indent=2))
    else:
        from .table import show

        show(home, state)
    return 0 if state["state"] == "ready" else 3


def restart(home: Home, name: str) -> int:
    """Stop a service and wait until its supervisor has it ready again."""
    state = home.read_state()
    if supervisor_pid(home) is None:
        raise OSError(f"no local stack runs in {home.root}: `up` starts one")
    units = {key: unit for key, unit in state["services"].items() if unit["address"] or unit["pid"]}
    if name not in units:
        raise service.UnknownService(f"no running service is called {name!r}; there are {', '.join(units)}")
    before = units[name]
    if before["pid"]:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(before["pid"]).send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        now = home.read_state().get("services", {}).get(name, {})
        if now.get("state") == "ready" and now.get("restarts", 0) > before["restarts"]:
            say(f"{name} is ready again, pid {now['pid']}")
            return 0
        time.sleep(POLL_SECONDS)
    raise OSError(f"{name} is not ready again: see {before['log']}")


def execute(home: Home, words: list[str]) -> int:
    """Replace this process by the command."""
    if not home.env_file.exists():
        raise OSError(f"{home.env_file} is not there: `up` writes it")
    values = environment.parse(home.env_file.read_text())
    os.execvpe(words[0], words, {**os.environ, **values})
