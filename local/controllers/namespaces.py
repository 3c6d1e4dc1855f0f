"""Namespaces: a `default` service account in each, and the emptying of those that are being deleted."""

from __future__ import annotations

from local.client.api import ApiError
from local.client.informer import Cache
from local.client.kinds import NAMESPACES, SERVICEACCOUNTS, Key, Obj
from local.client.objects import deleting
from local.client.queue import Queue
from local.controllers.garbage import discover


class Namespaces:
    """The namespace controller and the service account controller."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._queue: Queue[Key] = Queue("namespace", self._reconcile)

    async def run(self) -> None:
        await self._cache.sync(NAMESPACES, SERVICEACCOUNTS)
        self._cache.of(NAMESPACES).on_change(lambda _, new: self._add(new))
        self._cache.of(SERVICEACCOUNTS).on_change(self._account_changed)
        await self._queue.run(workers=2)

    def _add(self, namespace: Obj | None) -> None:
        if namespace:
            self._queue.add(("", namespace["metadata"]["name"]))

    def _account_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is None and old is not None and old["metadata"]["name"] == "default":
            self._queue.add(("", old["metadata"]["namespace"]))

    async def _reconcile(self, key: Key) -> float | None:
        namespace = self._cache.of(NAMESPACES).get(*key)
        if namespace is None:
            return None
        name = namespace["metadata"]["name"]
        if deleting(namespace):
            return await self._empty(namespace)
        if self._cache.of(SERVICEACCOUNTS).get(name, "default") is None:
            try:
                await self._cache.create(
                    SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": name}}
                )
            except ApiError as error:
                # 403: the namespace began to go in the meantime.
                if not error.already_exists and error.code not in (403, 404):
                    raise
        return None

    async def _empty(self, namespace: Obj) -> float | None:
        """Delete all content; once nothing is left, remove the finalizer that keeps the namespace."""
        name, left = namespace["metadata"]["name"], 0
        for resource in await discover(self._cache.api):
            if not resource.namespaced:
                continue
            for obj in (await self._cache.api.list(resource, name))["items"]:
                left += 1
                if not deleting(obj):
                    await self._cache.delete(resource, obj, propagation="Background")
        if left:
            return 0.3
        finalizers = [each for each in namespace["spec"].get("finalizers") or [] if each != "kubernetes"]
        body = {**namespace, "spec": {**namespace["spec"], "finalizers": finalizers}}
        try:
            await self._cache.api.update(NAMESPACES, body, sub="finalize")
        except ApiError as error:
            if not error.not_found:
                raise
        return None
