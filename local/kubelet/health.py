"""A running container's probes: startup first, then readiness and liveness side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from local.kubelet.hooks import probe_target
from local.kubelet.probes import Probe, Verdict, attempt

if TYPE_CHECKING:
    from local.kubelet.container import Container

Kill = Callable[[float | None], Awaitable[None]]
"""Stops the container's process, with the probe's own grace period or (None) the pod's."""


class Health:
    """Keeps `started` and `ready` of one run of a container."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._target = probe_target(container)

    async def run(self, kill: Kill) -> None:
        """Until cancelled (the process ended) or the container was killed for being unhealthy."""
        spec, state = self._container.spec, self._container.state
        startup = Probe.parse(spec.get("startupProbe"))
        readiness = Probe.parse(spec.get("readinessProbe"))
        liveness = Probe.parse(spec.get("livenessProbe"))
        begun = asyncio.get_running_loop().time()
        if startup and not await self._until_started(startup, begun, kill):
            return
        state.started = True
        state.ready = readiness is None
        self._container.context.changed()
        loops = []
        if readiness:
            loops.append(asyncio.create_task(self._ready(readiness, begun)))
        if liveness:
            loops.append(asyncio.create_task(self._alive(liveness, begun, kill)))
        try:
            await asyncio.gather(*loops)
        finally:
            for task in loops:
                task.cancel()

    async def _wait_delay(self, probe: Probe, begun: float) -> None:
        await asyncio.sleep(max(0.0, begun + probe.delay - asyncio.get_running_loop().time()))

    async def _try(self, probe: Probe, kind: str) -> bool:
        good, message = await attempt(probe, self._target)
        if not good:
            text = f"{kind} probe failed: {message}"
            self._container.context.event("Warning", "Unhealthy", text, self._container.field)
        return good

    async def _until_started(self, probe: Probe, begun: float, kill: Kill) -> bool:
        await self._wait_delay(probe, begun)
        verdict = Verdict(probe)
        while True:
            if verdict.count(await self._try(probe, "Startup")):
                if verdict.settled:
                    return True
                await self._kill("startup", probe, kill)
                return False
            await asyncio.sleep(probe.period)

    async def _ready(self, probe: Probe, begun: float) -> None:
        await self._wait_delay(probe, begun)
        verdict, state = Verdict(probe), self._container.state
        while True:
            verdict.count(await self._try(probe, "Readiness"))
            ready = verdict.settled is True
            if state.running_since and ready != state.ready:
                state.ready = ready
                self._container.context.changed()
            await asyncio.sleep(probe.period)

    async def _alive(self, probe: Probe, begun: float, kill: Kill) -> None:
        await self._wait_delay(probe, begun)
        verdict = Verdict(probe)
        while True:
            if verdict.count(await self._try(probe, "Liveness")) and not verdict.settled:
                await self._kill("liveness", probe, kill)
                return
            await asyncio.sleep(probe.period)

    async def _kill(self, kind: str, probe: Probe, kill: Kill) -> None:
        container = self._container
        text = f"Container {container.spec['name']} failed {kind} probe, will be restarted"
        container.context.event("Normal", "Killing", text, container.field)
        await kill(probe.grace)
