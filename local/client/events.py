"""Events as client-go's recorder writes them: the same event again raises its count instead of making
another.
"""

from __future__ import annotations

import asyncio
import logging
import time

import aiohttp

from local.client.api import Api, ApiError
from local.client.kinds import EVENTS, Obj
from local.client.objects import stamp

log = logging.getLogger(__name__)


class Recorder:
    """Writes events in the background, in order; losing one is logged and otherwise harmless."""

    def __init__(self, api: Api, component: str) -> None:
        self._api = api
        self._component = component
        self._queue: asyncio.Queue[tuple[Obj, str, str, str, str]] = asyncio.Queue()
        self._seen: dict[tuple[str, ...], tuple[str, int, str]] = {}

    def event(
        self, obj: Obj, kind: str, reason: str, message: str, *, host: str = "", field: str = ""
    ) -> None:
        """Record `reason` (type `kind`: Normal or Warning) about `obj`; `field` such as
        spec.containers{main}.
        """
        meta = obj["metadata"]
        involved = {
            "apiVersion": obj.get("apiVersion", "v1"),
            "kind": obj["kind"],
            "name": meta["name"],
            "uid": meta.get("uid", ""),
        }
        if meta.get("namespace"):
            involved["namespace"] = meta["namespace"]
        if meta.get("resourceVersion"):
            involved["resourceVersion"] = meta["resourceVersion"]
        if field:
            involved["fieldPath"] = field
        self._queue.put_nowait((involved, kind, reason, message[:1024], host))

    async def run(self) -> None:
        while True:
            item = await self._queue.get()
            try:
                await self._write(*item)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("event %s of %s is lost: %s", item[2], item[0]["name"], error)
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        await self._queue.join()

    async def _write(self, involved: Obj, kind: str, reason: str, message: str, host: str) -> None:
        namespace = involved.get("namespace", "default")
        key = (namespace, involved["uid"], involved.get("fieldPath", ""), kind, reason, message, host)
        moment = stamp()
        if key in self._seen:
            name, count, first = self._seen[key]
            patch = {"count": count + 1, "lastTimestamp": moment}
            try:
                await self._api.patch(EVENTS, namespace, name, patch)
                self._seen[key] = (name, count + 1, first)
                return
            except ApiError as error:
                if not error.not_found:
                    raise
        name = f"{involved['name']}.{time.time_ns():x}"
        await self._api.create(
            EVENTS,
            {
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "type": kind,
                "source": {"component": self._component, **({"host": host} if host else {})},
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "count": 1,
                "reportingComponent": self._component,
                "reportingInstance": host,
            },
        )
        self._seen[key] = (name, 1, moment)
        while len(self._seen) > 4096:
            self._seen.pop(next(iter(self._seen)))
