"""Starts the parts in the order of their needs, keeps them running, and stops them in reverse."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from . import leftovers
from .home import Home, write_private
from .service import Part, Service, Step

BACKOFF_SECONDS = (0.3, 1.0, 2.0, 5.0, 10.0)
"""Pauses between restarts of one service; the last one repeats."""
CALM_SECONDS = 60.0
"""After so long a life, the next crash counts as the first."""
START_ATTEMPTS = 3
"""A service that dies so often before it was ever ready stops the whole start."""
PROBE_SECONDS = 0.1
TAIL_LINES = 20


class StartFailed(Exception):
    """A part did not come up; the message says which one, its last words, and what to do."""


@dataclass
class Unit:
    """One part and how it is doing."""

    part: Part
    state: str = "waiting"  # then starting, ready | done, restarting, stopped, failed
    pid: int | None = None
    restarts: int = 0
    seconds: float = 0.0
    remark: str = ""
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    former: set[int] = field(default_factory=set)
    """Sessions of crashed processes that still have members."""


class Supervisor:
    """Runs `parts` until `stop` is called; writes `stack.json` at every change."""

    def __init__(
        self,
        home: Home,
        parts: tuple[Part, ...],
        environment: Mapping[str, str],
        facts: Mapping[str, Any],
        on_change: Callable[[dict[str, Any]], None] = lambda state: None,
    ) -> None:
        """`environment`: all that children get. `facts`: endpoints and files, for `stack.json`."""
        self.home = home
        self.units = {part.name: Unit(part) for part in parts}
        self.environment = dict(environment)
        self.facts = dict(facts)
        self.on_change = on_change
        self.state = "starting"
        self.error = ""
        self._stopping = asyncio.Event()
        self._reminders: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Begin to stop; safe to call from a signal handler, and twice."""
        self._stopping.set()

    async def run(self) -> None:
        """Start all, stay until stopped, stop all.

        Raises StartFailed, after everything was stopped again, when a part does not come up.
        """
        self._write()
        tasks = [asyncio.create_task(self._keep(unit)) for unit in self.units.values()]
        tasks.append(asyncio.create_task(self._end_former_sessions()))
        started = asyncio.create_task(self._all_ready())
        stopping = asyncio.create_task(self._stopping.wait())
        failure: BaseException | None = None
        try:
            waiting: set[asyncio.Task[Any]] = {started, stopping, *tasks}
            while not stopping.done() and failure is None:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                failure = next((task.exception() for task in done if task.exception()), None)
                if started in done and failure is None:
                    self._set_state("ready")
        finally:
            self.error = str(failure) if failure else ""
            self._stopping.set()
            self._set_state("stopping")
            await asyncio.gather(*(self._stop(unit) for unit in self.units.values()))
            for task in (*tasks, started, stopping):
                task.cancel()
            await asyncio.gather(*tasks, started, stopping, return_exceptions=True)
            await asyncio.to_thread(leftovers.sweep, self.home)
            self._set_state("failed" if failure else "stopped")
        if failure:
            raise failure

    async def _all_ready(self) -> None:
        await asyncio.gather(*(unit.ready.wait() for unit in self.units.values()))

    async def _keep(self, unit: Unit) -> None:
        """A unit's life: wait for its needs, start, watch, start again."""
        await asyncio.gather(*(self.units[need].ready.wait() for need in unit.part.needs))
        if self._stopping.is_set():
            return
        if isinstance(unit.part, Step):
            await self._do(unit, unit.part)
            return
        deaths = 0
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                code = await self._live(unit, unit.part)
            except (TimeoutError, OSError, psutil.Error) as error:
                if not unit.ready.is_set():
                    raise StartFailed(self._explain(unit, str(error))) from error
                code = None
            if self._stopping.is_set():
                return
            deaths = 1 if time.monotonic() - begun > CALM_SECONDS else deaths + 1
            if not unit.ready.is_set() and deaths >= START_ATTEMPTS:
                raise StartFailed(self._explain(unit, f"exited with status {code}, {deaths} times"))
            unit.restarts += 1
            self._update(unit, "restarting", pid=None)
            await asyncio.sleep(BACKOFF_SECONDS[min(deaths, len(BACKOFF_SECONDS)) - 1])

    async def _do(self, unit: Unit, step: Step) -> None:
        begun = time.monotonic()
        self._update(unit, "starting")
        try:
            remark = await asyncio.wait_for(step.run(), step.ready_seconds)
        except Exception as error:
            unit.state = "failed"
            raise StartFailed(self._explain(unit, str(error) or repr(error))) from error
        unit.seconds = time.monotonic() - begun
        unit.ready.set()
        self._update(unit, "done", remark=remark or "")

    def _remind(self, unit: Unit) -> None:
        """Begin the steps anew that a service has forgotten with its last life."""
        for other in self.units.values():
            step = other.part
            if isinstance(step, Step) and step.repeats and unit.part.name in step.needs:
                task = asyncio.create_task(self._repeat(other, step))
                self._reminders.add(task)
                task.add_done_callback(self._reminders.discard)

    async def _repeat(self, unit: Unit, step: Step) -> None:
        """A step that fails after the start stops nothing: its state says so."""
        try:
            await self._do(unit, step)
        except StartFailed as error:
            self._update(unit, "failed", remark=str(error).splitlines()[0])

    async def _live(self, unit: Unit, service: Service) -> int:
        """Start once and wait for the end; returns the exit status.

        Raises TimeoutError when it lives but does not get ready; it is killed then.
        """
        self._update(unit, "starting")
        begun = time.monotonic()
        if service.prepare:
            await service.prepare()
        with self.home.log(service.name).open("ab") as log:
            started = time.time()
            process = await asyncio.create_subprocess_exec(
                *service.command,
                cwd=self.home.root,
                env={**self.environment, **service.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        unit.process = process
        unit.former.add(process.pid)
        self._update(unit, "starting", pid=process.pid)
        exit_status = asyncio.create_task(process.wait())
        try:
            while not exit_status.done() and not await service.ready(started):
                if time.monotonic() - begun > service.ready_seconds and not self._stopping.is_set():
                    process.kill()
                    raise TimeoutError(f"not ready after {service.ready_seconds:.0f} s")
                await asyncio.wait({exit_status}, timeout=PROBE_SECONDS)
            if not exit_status.done():
                unit.seconds = time.monotonic() - begun
                unit.ready.set()
                self._update(unit, "ready")
                if unit.restarts:
                    self._remind(unit)
            return await asyncio.shield(exit_status)
        finally:
            if exit_status.done():
                unit.process = None

    async def _end_former_sessions(self) -> None:
        """End what crashed processes left behind, but for the children that a service spares."""
        while True:
            await asyncio.sleep(0.5)
            for unit in self.units.values():
                for leader in unit.former - {unit.pid or 0}:
                    assert isinstance(unit.part, Service)
                    members = await asyncio.to_thread(leftovers.in_session, leader)
                    idle = []
                    for process in members:
                        with suppress(psutil.Error):
                            if not unit.part.spares(process):
                                idle.append(process)
                    await asyncio.to_thread(leftovers.end, idle)
                    if not members:
                        unit.former.discard(leader)

    async def _stop(self, unit: Unit) -> None:
        """Stop one unit once all that need it have stopped."""
        users = [other for other in self.units.values() if unit.part.name in other.part.needs]
        await asyncio.gather(*(other.stopped.wait() for other in users))
        process = unit.process
        if process is not None and isinstance(unit.part, Service):
            with suppress(ProcessLookupError):
                process.send_signal(unit.part.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), unit.part.stop_seconds)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        for leader in tuple(unit.former):
            remains = await asyncio.to_thread(leftovers.in_session, leader)
            await asyncio.to_thread(leftovers.end, remains, grace=2.0)
        if unit.state != "failed":
            self._update(unit, "stopped", pid=None)
        unit.stopped.set()

    def _explain(self, unit: Unit, reason: str) -> str:
        log = self.home.log(unit.part.name)
        unit.state = "failed"
        text = f"{unit.part.name} did not come up: {reason}"
        if log.exists() and (lines := log.read_text(errors="replace").splitlines()[-TAIL_LINES:]):
            text += f"\n--- last lines of {log}\n" + "\n".join(lines) + "\n---"
        return f"{text}\nMend that and run `up` again; `down --wipe` begins with an empty state."

    def _update(self, unit: Unit, state: str, **changes: Any) -> None:
        unit.state = state
        for name, value in changes.items():
            setattr(unit, name, value)
        self._write()

    def _set_state(self, state: str) -> None:
        self.state = state
        self._write()

    def _write(self) -> None:
        snapshot = {
            "pid": os.getpid(),
            "state": self.state,
            "error": self.error,
            "services": {
                name: {
                    "pid": unit.pid,
                    "state": unit.state,
                    "log": str(self.home.log(name)),
                    "restarts": unit.restarts,
                    "seconds": round(unit.seconds, 2),
                    "remark": unit.remark,
                    "address": unit.part.address if isinstance(unit.part, Service) else "",
                }
                for name, unit in self.units.items()
            },
            **self.facts,
        }
        write_private(self.home.state_file, json.dumps(snapshot, indent=2) + "\n")
        self.on_change(snapshot)
