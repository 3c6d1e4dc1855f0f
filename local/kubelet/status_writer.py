"""Writes a pod's status when it changed: many changes in one turn of the loop become one patch."""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from local.client.api import ApiError
from local.client.informer import Cache
from local.client.kinds import PODS, Obj
from local.kubelet.status import PodState, pod_status

log = logging.getLogger(__name__)


class StatusWriter:
    """The status of one pod."""

    def __init__(self, cache: Cache, pod: Obj, state: PodState) -> None:
        self.pod = pod
        self._cache = cache
        self._state = state
        self._dirty = asyncio.Event()
        self._change = asyncio.Event()
        self._sent: Obj | None = None
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task:
            self._task.cancel()

    def changed(self) -> None:
        self._dirty.set()
        change, self._change = self._change, asyncio.Event()
        change.set()

    async def next_change(self) -> None:
        await self._change.wait()

    async def flush(self) -> None:
        """Write what is now; a pod that is gone is no error."""
        await self._write()
        self.stop()

    async def _run(self) -> None:
        pause = 0.1
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._write()
                pause = 0.1
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning(
                    "status of pod %s: %s", self.pod["metadata"]["name"], error or type(error).__name__
                )
                self._dirty.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _write(self) -> None:
        async with self._lock:
            status = pod_status(self.pod, self._state)
            if status == self._sent:
                return
            # The uid is a precondition: a pod of the same name that came later is not ours.
            body = {"metadata": {"uid": self.pod["metadata"]["uid"]}, "status": status}
            try:
                self.pod = await self._cache.patch(PODS, self.pod, body, sub="status")
                self._sent = status
            except ApiError as error:
                if error.not_found or error.conflict:
                    self._sent = status
                    return
                raise
