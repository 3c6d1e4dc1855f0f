"""Owner-reference garbage collection: background, foreground, orphan; over all that discovery lists."""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from local.client.api import Api, ApiError
from local.client.informer import Cache, Handler, key_of
from local.client.kinds import CRDS, Key, Obj, Resource
from local.client.objects import deleting
from local.client.queue import Queue

log = logging.getLogger(__name__)
SKIPPED = {("", "events"), ("events.k8s.io", "events"), ("coordination.k8s.io", "leases")}
"""What nothing owns here, but what changes often."""


async def discover(api: Api) -> list[Resource]:
    """Every resource that can be listed, watched and deleted, each group in its preferred version."""
    found = await _resources(api, "/api/v1", "", "v1")
    groups = (await api.request("GET", "/apis")).get("groups") or []
    for group in groups:
        preferred = (group.get("preferredVersion") or group["versions"][0])["version"]
        try:
            found += await _resources(api, f"/apis/{group['name']}/{preferred}", group["name"], preferred)
        except ApiError as error:
            log.warning("discovery of %s/%s: %s", group["name"], preferred, error)
    return found


async def _resources(api: Api, path: str, group: str, version: str) -> list[Resource]:
    answer = await api.request("GET", path)
    return [
        Resource(group, version, each["name"], each["kind"], bool(each["namespaced"]))
        for each in answer.get("resources") or []
        if {"list", "watch", "delete"} <= set(each.get("verbs") or []) and "/" not in each["name"]
    ]


class Garbage:
    """Follows all objects, knows who owns whom, deletes what has lost all owners."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._queue: Queue[tuple[Resource, Key]] = Queue("garbage", self._reconcile)
        self._dependents: dict[str, set[tuple[Resource, Key]]] = {}
        self._alive: dict[str, tuple[Resource, Key]] = {}
        self._absent: dict[str, None] = {}
        self._rediscover = asyncio.Event()
        self.resources: set[Resource] = set()
        self._custom: set[Resource] = set()

    async def run(self) -> None:
        await self._cache.sync(CRDS)
        self._cache.of(CRDS).on_change(lambda _old, _new: self._rediscover.set())
        await asyncio.gather(self._queue.run(workers=2), self._follow())

    async def _follow(self) -> None:
        """Watch every resource there is, again whenever a custom resource definition changes."""
        pause = 0.2
        while True:
            self._rediscover.clear()
            try:
                found = {
                    each
                    for each in await discover(self._cache.api)
                    if (each.group, each.plural) not in SKIPPED
                }
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                log.warning("discovery: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
                continue
            for resource in found - self.resources:
                self.resources.add(resource)
                self._cache.of(resource).on_change(self._handler(resource))
            served = {
                (each["spec"]["group"], each["spec"]["names"]["plural"])
                for each in self._cache.of(CRDS).items()
            }
            for resource in self._custom - found:
                if (resource.group, resource.plural) not in served:
                    self.resources.discard(resource)
                    await self._cache.drop(resource)
            self._custom = {each for each in self.resources if (each.group, each.plural) in served}
            await self._rediscover.wait()
            # Several definitions tend to come together, and serving a new one takes the server a moment.
            await asyncio.sleep(0.5)

    def _handler(self, resource: Resource) -> Handler:
        def changed(old: Obj | None, new: Obj | None) -> None:
            place = (resource, key_of(new or old or {}))
            for reference in (old or {}).get("metadata", {}).get("ownerReferences") or []:
                self._dependents.get(reference["uid"], set()).discard(place)
            if new is None:
                assert old is not None
                uid = old["metadata"]["uid"]
                self._alive.pop(uid, None)
                self._mark_absent(uid)
                for dependent in self._dependents.pop(uid, set()):
                    self._queue.add(dependent)
                # Owners that wait for their dependents to go.
                for reference in old["metadata"].get("ownerReferences") or []:
                    if reference["uid"] in self._alive:
                        self._queue.add(self._alive[reference["uid"]])
                return
            self._alive[new["metadata"]["uid"]] = place
            references = new["metadata"].get("ownerReferences") or []
            for reference in references:
                self._dependents.setdefault(reference["uid"], set()).add(place)
            concerned = references or (deleting(new) and new["metadata"].get("finalizers"))
            unlike = old is None or old["metadata"].get("ownerReferences") != references
            if concerned and (unlike or deleting(new)):
                self._queue.add(place)

        return changed

    def _mark_absent(self, uid: str) -> None:
        self._absent[uid] = None
        while len(self._absent) > 5000:
            self._absent.pop(next(iter(self._absent)))

    async def _reconcile(self, place: tuple[Resource, Key]) -> float | None:
        resource, key = place
        obj = self._cache.of(resource).get(*key)
        if obj is None:
            return None
        finalizers = obj["metadata"].get("finalizers") or []
        if deleting(obj):
            if "orphan" in finalizers:
                await self._orphan(resource, obj)
            elif "foregroundDeletion" in finalizers:
                await self._foreground(resource, obj)
            return None
        references = obj["metadata"].get("ownerReferences") or []
        if not references:
            return None
        present, waiting = [], []
        for reference in references:
            owner = await self._owner(reference, obj["metadata"].get("namespace", ""))
            if owner is None:
                continue
            if deleting(owner) and "foregroundDeletion" in (owner["metadata"].get("finalizers") or []):
                waiting.append(reference)
            else:
                present.append(reference)
        if present:
            if len(present) < len(references):
                await self._cache.patch(resource, obj, {"metadata": {"ownerReferences": present}})
            return None
        # A foreground deletion reaches down: dependents of dependents go first, too.
        down = "Foreground" if waiting and self._dependents.get(obj["metadata"]["uid"]) else "Background"
        log.info("collecting %s %s/%s", resource.plural, *key)
        await self._cache.delete(resource, obj, propagation=down)
        return None

    async def _owner(self, reference: Obj, namespace: str) -> Obj | None:
        """The owner as it is now, asked from the server when no cache knows it; None when it is gone."""
        uid = reference["uid"]
        if uid in self._alive:
            resource, key = self._alive[uid]
            return self._cache.of(resource).get(*key)
        if uid in self._absent:
            return None
        group = reference["apiVersion"].rpartition("/")[0]
        kind = next(
            (each for each in self.resources if (each.group, each.kind) == (group, reference["kind"])), None
        )
        if kind is None:
            # An owner of a kind that is not served (any more, or yet) is no reason to delete.
            return {"metadata": {"name": reference["name"], "uid": uid}}
        try:
            found = await self._cache.api.get(kind, namespace if kind.namespaced else None, reference["name"])
        except ApiError as error:
            if not error.not_found:
                raise
            found = {"metadata": {"uid": ""}}
        if found["metadata"]["uid"] == uid:
            return found
        self._mark_absent(uid)
        return None

    async def _foreground(self, resource: Resource, obj: Obj) -> None:
        uid = obj["metadata"]["uid"]
        blocking = False
        for dependent in list(self._dependents.get(uid, set())):
            found = self._cache.of(dependent[0]).get(*dependent[1])
            if found is None:
                continue
            reference: Obj = next(
                (each for each in found["metadata"]["ownerReferences"] if each["uid"] == uid), {}
            )
            blocking = blocking or bool(reference.get("blockOwnerDeletion"))
            if not deleting(found):
                self._queue.add(dependent)
        if not blocking:
            await self._drop_finalizer(resource, obj, "foregroundDeletion")

    async def _orphan(self, resource: Resource, obj: Obj) -> None:
        uid = obj["metadata"]["uid"]
        for place in list(self._dependents.get(uid, set())):
            found = self._cache.of(place[0]).get(*place[1])
            if found:
                kept = [each for each in found["metadata"]["ownerReferences"] if each["uid"] != uid]
                await self._cache.patch(place[0], found, {"metadata": {"ownerReferences": kept or None}})
        await self._drop_finalizer(resource, obj, "orphan")

    async def _drop_finalizer(self, resource: Resource, obj: Obj, name: str) -> None:
        meta = obj["metadata"]
        kept = [each for each in meta.get("finalizers") or [] if each != name]
        body = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": kept or None}}
        try:
            await self._cache.patch(resource, obj, body)
        except ApiError as error:
            if not error.not_found:
                raise
