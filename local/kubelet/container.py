"""The life of one container: pull, start, watch, restart with back-off, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import time
import uuid
from typing import Any

from local.client.kinds import Obj
from local.client.objects import stamp
from local.client.quantity import parse_quantity
from local.kubelet.context import PodContext
from local.kubelet.environment import ConfigError
from local.kubelet.health import Health
from local.kubelet.hooks import run_hook
from local.kubelet.images import Image
from local.kubelet.launch import Launch, prepare
from local.kubelet.logs import ContainerLog, last_lines
from local.kubelet.process import Process, Pump
from local.kubelet.pulling import pull, start_error
from local.kubelet.status import ContainerState

log = logging.getLogger(__name__)
TERM = 15
SETTLED = 600.0
"""A run of this many seconds forgets earlier crashes (twice the longest back-off, as in the kubelet)."""


class Container:
    """Runs one container of a pod until it is done or stopped."""

    def __init__(
        self, context: PodContext, spec: Obj, state: ContainerState, *, init: bool, sidecar: bool
    ) -> None:
        self.context = context
        self.spec = spec
        self.state = state
        self.init = init and not sidecar
        self.sidecar = sidecar
        kind = "initContainers" if init else "containers"
        self.field = f"spec.{kind}{{{spec['name']}}}"
        self.process: Process | None = None
        self.launch: Launch | None = None
        self.log: ContainerLog | None = None
        self.stopping = asyncio.Event()
        self._killed_for = ""
        self._idle = asyncio.Event()
        self._idle.set()
        self._crashes = 0

    # -- the loop --------------------------------------------------------------------------------------
    # -------------

    async def run(self, policy: str) -> None:
        """Until the container is done for good (see `state.done`) or stopped."""
        while not self.stopping.is_set():
            image = await pull(self)
            if image is None:
                return
            begun = time.monotonic()
            if not await self._run_once(image):
                continue
            if self.stopping.is_set() or not self._restarts(policy):
                self.state.done = True
                self.context.changed()
                return
            if time.monotonic() - begun > SETTLED:
                self._crashes = 0
            await self._back_off(time.monotonic())
            self.state.restarts += 1
        self.state.done = self.state.terminated is not None

    def _restarts(self, policy: str) -> bool:
        assert self.state.terminated is not None
        if self.sidecar:
            return True
        failed = self.state.terminated["exitCode"] != 0
        if self.init:
            return failed and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and failed)

    async def _back_off(self, ended: float) -> None:
        settings = self.context.host.settings
        # The first restart is immediate; the back-off of the kubelet begins with the second.
        delay = (
            0.0
            if not self._crashes
            else min(settings.backoff_base * 2 ** (self._crashes - 1), settings.backoff_max)
        )
        self._crashes += 1
        if not delay:
            return
        meta = self.context.pod["metadata"]
        name = f"pod={meta['name']}_{meta['namespace']}({meta['uid']})"
        self.state.wait(
            "CrashLoopBackOff",
            f"back-off {_go(delay)} restarting failed container={self.spec['name']} {name}",
        )
        self.event(
            "Warning",
            "BackOff",
            f"Back-off restarting failed container {self.spec['name']} in pod {name.removeprefix('pod=')}",
        )
        self.context.changed()
        await self.pause(delay - (time.monotonic() - ended))

    async def pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), max(seconds, 0.0))

    def event(self, kind: str, reason: str, message: str) -> None:
        self.context.event(kind, reason, message, self.field)

    # -- one run ---------------------------------------------------------------------------------------
    # ---------------

    async def _run_once(self, image: Image) -> bool:
        """Start and follow one run; false when it could not even be configured (try again)."""
        try:
            launch = self.launch = prepare(self.context, self.spec, image, init=self.init)
        except ConfigError as error:
            self.state.wait("CreateContainerConfigError", str(error))
            self.event("Warning", "Failed", f"Error: {error}")
            self.context.changed()
            await self.pause(min(2.0, self.context.host.settings.backoff_base))
            await self.context.refresh()
            return False
        launch.message_file.write_bytes(b"")
        container_id = f"local://{uuid.uuid4().hex}{uuid.uuid4().hex}"
        path = self.context.logs / self.spec["name"] / f"{self.state.restarts}.log"
        self.log = ContainerLog(path)
        path.with_name(f"{self.state.restarts - 2}.log").unlink(missing_ok=True)
        try:
            process = Process.start(launch.argv, launch.environment, launch.folder)
        except OSError as error:
            self._not_started(error, launch, container_id)
            return True
        self._idle.clear()
        self._killed_for = ""
        self.process = process
        self.event("Normal", "Created", "Container created")
        self.event("Normal", "Started", "Container started")
        self.state.run(container_id)
        try:
            await self._follow(process, launch)
        finally:
            self._idle.set()
        return True

    async def _follow(self, process: Process, launch: Launch) -> None:
        began = self.state.running_since
        container_id = self.state.container_id
        pumps = self._pump(process)
        self._limit_memory(process)
        health = asyncio.create_task(self._health(process))
        self.context.changed()
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            raise
        finally:
            health.cancel()
            process.sweep()
            for pump in pumps:
                pump.drain()
            if self.log:
                self.log.close()
            self.process = None
        reason = "Completed" if code == 0 else "Error"
        if self._killed_for == "OOMKilled":
            reason, code = "OOMKilled", 137
        terminated: dict[str, Any] = {
            "exitCode": code,
            "reason": reason,
            "startedAt": began,
            "finishedAt": stamp(),
            "containerID": container_id,
        }
        message = self._message(launch, code)
        if message:
            terminated["message"] = message
        self.state.end(terminated)
        self.context.changed()

    def _pump(self, process: Process) -> list[Pump]:
        sink = self.log
        assert sink is not None
        return [
            Pump.of(process.popen.stdout, lambda data: sink.write("stdout", data)),
            Pump.of(process.popen.stderr, lambda data: sink.write("stderr", data)),
        ]

    def _limit_memory(self, process: Process) -> None:
        limit = ((self.spec.get("resources") or {}).get("limits") or {}).get("memory")
        if limit is None:
            return

        def exceeded() -> None:
            self._killed_for = "OOMKilled"
            process.kill()

        self.context.host.memory.watch(process, int(parse_quantity(limit)), exceeded)

    def _message(self, launch: Launch, code: int) -> str:
        try:
            text = launch.message_file.read_bytes()[:4096].decode(errors="replace")
        except OSError:
            text = ""
        fallback = self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not text and fallback and code != 0 and self.log:
            text = last_lines(self.log.path)
        return text

    def _not_started(self, error: OSError, launch: Launch, container_id: str) -> None:
        text, code = start_error(launch.argv[0], error)
        self.event("Normal", "Created", "Container created")
        self.event("Warning", "Failed", f"Error: {text}")
        if self.log:
            self.log.close()
        self.state.container_id = container_id
        self.state.end(
            {
                "exitCode": code,
                "reason": "StartError",
                "message": text,
                "startedAt": "1970-01-01T00:00:00Z",
                "finishedAt": stamp(),
                "containerID": container_id,
            }
        )
        self.context.changed()

    # -- health and hooks
    # ---------------------------------------------------------------------------------------------

    async def _health(self, process: Process) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if hook:
            problem = await run_hook(hook, self, timeout=None)
            if problem:
                self.event("Warning", "FailedPostStartHook", f"PostStartHook failed: {problem}")
                await self._terminate(process, self.grace, "FailedPostStartHook")
                return
        await Health(self).run(
            lambda grace: self._terminate(process, self.grace if grace is None else grace, "unhealthy")
        )

    @property
    def grace(self) -> float:
        return float(self.context.pod["spec"].get("terminationGracePeriodSeconds", 30))

    async def execute(self, argv: list[str], timeout: float | None) -> tuple[int, str]:
        """Run a command beside the container's process; raises OSError, subprocess.TimeoutExpired."""
        launch = self.launch
        if launch is None:
            raise OSError("container is not running")
        output = bytearray()
        process = Process.start(
            [launch.paths.rewrite(part) for part in argv],
            launch.environment,
            launch.folder,
            stderr=subprocess.STDOUT,
        )
        pump = Pump.of(process.popen.stdout, output.extend)
        try:
            code = await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError as error:
            raise subprocess.TimeoutExpired(argv, timeout or 0.0) from error
        finally:
            process.kill()
            pump.drain()
        return code, output[:10240].decode(errors="replace")

    # -- stopping --------------------------------------------------------------------------------------
    # ---------------

    async def stop(self, grace: float) -> None:
        """Stop for good: preStop, SIGTERM, grace, SIGKILL. Returns when the process is gone."""
        self.stopping.set()
        process = self.process
        if process is not None and process.alive:
            self.event("Normal", "Killing", f"Stopping container {self.spec['name']}")
            await self._terminate(process, grace, "stopped")
        await self._idle.wait()

    async def _terminate(self, process: Process, grace: float, why: str) -> None:
        self._killed_for = self._killed_for or why
        begun = time.monotonic()
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0 and process.alive:
            problem = await run_hook(hook, self, timeout=grace)
            if problem:
                self.event("Warning", "FailedPreStopHook", f"PreStopHook failed: {problem}")
        if grace > 0:
            process.signal(TERM)
            # A hook that used up the grace period still leaves two seconds, as in the kubelet.
            left = max(grace - (time.monotonic() - begun), 2.0 if hook else 0.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), left)
        if process.alive:
            process.kill()
        await process.wait()


def _go(seconds: float) -> str:
    """Go's spelling of a duration: 10s, 1m20s, 500ms."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
