"""List-watch caches: what the cluster looks like now, kept by one watch a resource.

A controller that reads its own cache right after a write would see the past. Therefore a write's answer goes
into the
cache at once (`observe`, `forget`), and a watch event older than what is cached is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator

import aiohttp

from local.client.api import Api, ApiError, PatchKind
from local.client.kinds import Key, Obj, Resource

log = logging.getLogger(__name__)
Handler = Callable[[Obj | None, Obj | None], None]
"""Called with (old, new): new is None when the object is gone, old is None when it is new."""


def key_of(obj: Obj) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def version_of(obj: Obj) -> int:
    """resourceVersion as a number: comparable within one resource (Kubernetes 1.35 made that a promise)."""
    try:
        return int(obj["metadata"].get("resourceVersion", "0"))
    except ValueError:
        return 0


class Informer:
    """The cache of one resource."""

    def __init__(self, api: Api, resource: Resource) -> None:
        self.api = api
        self.resource = resource
        self.synced = asyncio.Event()
        self._items: dict[Key, Obj] = {}
        self._gone: dict[str, None] = {}
        self._handlers: list[Handler] = []

    def on_change(self, handler: Handler) -> None:
        """Register a handler; it is called at once for everything already cached."""
        self._handlers.append(handler)
        for obj in list(self._items.values()):
            handler(None, obj)

    def get(self, namespace: str, name: str) -> Obj | None:
        return self._items.get((namespace, name))

    def items(self, namespace: str | None = None) -> Iterator[Obj]:
        for key, obj in list(self._items.items()):
            if namespace is None or key[0] == namespace:
                yield obj

    def observe(self, obj: Obj) -> None:
        """Take in an object as the server just returned it, unless something newer is cached."""
        uid = obj["metadata"].get("uid", "")
        key = key_of(obj)
        old = self._items.get(key)
        if uid in self._gone:
            return
        if old is not None and old["metadata"].get("uid") == uid and version_of(obj) <= version_of(old):
            return
        self._items[key] = obj
        if old is not None and old["metadata"].get("uid") != uid:
            self._tell(old, None)
            old = None
        self._tell(old, obj)

    def forget(self, obj: Obj) -> None:
        """Take out an object that the server said is gone."""
        key, uid = key_of(obj), obj["metadata"].get("uid", "")
        self._gone[uid] = None
        while len(self._gone) > 2000:
            self._gone.pop(next(iter(self._gone)))
        old = self._items.get(key)
        if old is not None and old["metadata"].get("uid") == uid:
            del self._items[key]
            self._tell(old, None)

    def _tell(self, old: Obj | None, new: Obj | None) -> None:
        for handler in self._handlers:
            try:
                handler(old, new)
            except Exception:
                log.exception("handler of %s failed", self.resource.plural)

    async def run(self) -> None:
        """List, watch, and list again whenever the server asks for it; never returns."""
        version = ""
        pause = 0.1
        while True:
            try:
                if not version:
                    version = await self._list()
                    self.synced.set()
                    pause = 0.1
                begun = time.monotonic()
                # The real client's range (5 to 10 minutes), so that many watches do not end together.
                seconds = random.randint(300, 600)
                async for event in self.api.watch(self.resource, None, version, seconds):
                    pause = 0.1
                    obj = event["object"]
                    version = obj["metadata"]["resourceVersion"]
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self.observe(obj)
                    elif event["type"] == "DELETED":
                        self.forget(obj)
                if time.monotonic() - begun < 1.0:
                    # A server that ends watches at once must not be asked in a tight loop.
                    pause = await _rest(pause)
            except ApiError as error:
                if error.not_found and not version:
                    # A custom resource that is not defined (yet): there are no objects, which is an answer.
                    self.synced.set()
                elif not error.gone:
                    log.warning("watch of %s: %s", self.resource.plural, error)
                version = ""
                if not error.gone:
                    pause = await _rest(pause)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                log.info("watch of %s broke off: %r", self.resource.plural, error)
                pause = await _rest(pause)

    async def _list(self) -> str:
        # What this process writes while the list is on its way is not in it, and not gone.
        known = list(self._items.values())
        answer = await self.api.list(self.resource)
        present = {obj["metadata"]["uid"] for obj in answer["items"]}
        for obj in known:
            if obj["metadata"]["uid"] not in present:
                self.forget(obj)
        for obj in answer["items"]:
            # Items of a list carry no type of their own.
            obj.setdefault("apiVersion", self.resource.api_version)
            obj.setdefault("kind", self.resource.kind)
            self.observe(obj)
        return str(answer["metadata"]["resourceVersion"])


async def _rest(pause: float) -> float:
    await asyncio.sleep(pause * random.uniform(0.8, 1.2))
    return min(pause * 2, 3.0)


class Cache:
    """All informers of a process, and writes that are seen in them at once."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self._informers: dict[Resource, Informer] = {}
        self._tasks: dict[Resource, asyncio.Task[None]] = {}

    def of(self, resource: Resource) -> Informer:
        """The informer of a resource, made and started when first asked for."""
        if resource not in self._informers:
            informer = self._informers[resource] = Informer(self.api, resource)
            self._tasks[resource] = asyncio.create_task(informer.run(), name=f"watch {resource.plural}")
        return self._informers[resource]

    def has(self, resource: Resource) -> bool:
        return resource in self._informers

    async def drop(self, resource: Resource) -> None:
        """Stop watching a resource that is served no longer."""
        self._informers.pop(resource, None)
        task = self._tasks.pop(resource, None)
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def sync(self, *resources: Resource) -> None:
        await asyncio.gather(*(self.of(resource).synced.wait() for resource in resources))

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def create(self, resource: Resource, obj: Obj) -> Obj:
        made = await self.api.create(resource, obj)
        self._saw(resource, made)
        return made

    async def patch(
        self, resource: Resource, obj: Obj, patch: Obj, *, kind: PatchKind = "merge", sub: str | None = None
    ) -> Obj:
        meta = obj["metadata"]
        made = await self.api.patch(resource, meta.get("namespace"), meta["name"], patch, kind=kind, sub=sub)
        self._saw(resource, made)
        return made

    async def delete(
        self, resource: Resource, obj: Obj, *, grace: int | None = None, propagation: str | None = None
    ) -> None:
        """Delete this very object (uid precondition); one that is gone already, or another's by now, is no
        error.
        """
        meta = obj["metadata"]
        try:
            answer = await self.api.delete(
                resource,
                meta.get("namespace"),
                meta["name"],
                uid=meta["uid"],
                grace=grace,
                propagation=propagation,
            )
        except ApiError as error:
            if error.not_found or error.conflict:
                return
            raise
        if answer.get("kind") == resource.kind and answer["metadata"].get("deletionTimestamp"):
            self._saw(resource, answer)

    def _saw(self, resource: Resource, obj: Obj) -> None:
        if resource in self._informers and obj.get("metadata", {}).get("uid"):
            self._informers[resource].observe(obj)
