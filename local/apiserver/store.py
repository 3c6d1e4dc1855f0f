"""Objects in memory with one revision counter, ordered keys and a bounded history per collection.

Stored objects are never changed in place: a write puts a new dict, so readers, watchers and the history may
hold what they were given without copying it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from local.apiserver.errors import Object, gone

HISTORY = 4096
"""Events kept per collection; a watch that wants older ones is told 410 Gone."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One write: `type` is ADDED, MODIFIED or DELETED; `previous` is the object before it."""

    type: str
    revision: int
    key: str
    object: Object
    previous: Object | None


class Subscription:
    """A watcher's queue; it ends with None when the collection goes away."""

    def __init__(self, collection: Collection) -> None:
        self.queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._collection = collection
        collection.subscriptions.add(self)

    def close(self) -> None:
        self._collection.subscriptions.discard(self)


class Collection:
    """All objects of one resource, of every namespace, in etcd's key order (`namespace/name`)."""

    def __init__(self, history: int, floor: int) -> None:
        self._keys: list[str] = []
        self._objects: dict[str, Object] = {}
        self._history: deque[Change] = deque(maxlen=history)
        self._floor = floor
        self.subscriptions: set[Subscription] = set()

    def get(self, key: str) -> Object | None:
        return self._objects.get(key)

    def scan(self, namespace: str | None) -> Iterator[tuple[str, Object]]:
        """Keys and objects in order; `namespace` None means all."""
        low, high = 0, len(self._keys)
        if namespace is not None:
            low = bisect_left(self._keys, namespace + "/")
            high = bisect_left(self._keys, namespace + "0")  # '0' follows '/' in ASCII
        for key in self._keys[low:high]:
            yield key, self._objects[key]

    def scan_at(self, namespace: str | None, revision: int) -> list[tuple[str, Object]]:
        """The collection as it was at `revision`, by undoing the history since; 410 if that is lost."""
        state = dict(self.scan(namespace))
        for change in reversed(self.since(revision)):
            if namespace is not None and not change.key.startswith(namespace + "/"):
                continue
            if change.previous is None:
                state.pop(change.key, None)
            else:
                state[change.key] = change.previous
        return sorted(state.items())

    def since(self, revision: int) -> list[Change]:
        """Changes after `revision`, oldest first; ApiError 410 when some of them are forgotten."""
        if revision < self._floor:
            raise gone(f"too old resource version: {revision} ({self._floor})")
        newer: list[Change] = []
        for change in reversed(self._history):
            if change.revision <= revision:
                break
            newer.append(change)
        newer.reverse()
        return newer

    def record(self, change: Change) -> None:
        if change.type == "DELETED":
            del self._objects[change.key]
            del self._keys[bisect_left(self._keys, change.key)]
        else:
            if change.key not in self._objects:
                insort(self._keys, change.key)
            self._objects[change.key] = change.object
        if len(self._history) == self._history.maxlen:
            self._floor = self._history[0].revision
        self._history.append(change)
        for subscription in self.subscriptions:
            subscription.queue.put_nowait(change)

    def close(self) -> None:
        for subscription in self.subscriptions:
            subscription.queue.put_nowait(None)


def key_of(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


class Store:
    """Collections by (group, plural). One thread: a method that does not await is a transaction."""

    def __init__(self, history: int = HISTORY) -> None:
        self.revision = 1
        self._history = history
        self._collections: dict[tuple[str, str], Collection] = {}
        self._floors: dict[tuple[str, str], int] = {}

    def collection(self, where: tuple[str, str]) -> Collection:
        found = self._collections.get(where)
        if found is None:
            found = self._collections[where] = Collection(self._history, self._floors.get(where, 0))
        return found

    def drop(self, where: tuple[str, str]) -> None:
        collection = self._collections.pop(where, None)
        self.revision += 1  # nobody may continue from before it was dropped
        self._floors[where] = self.revision
        if collection is not None:
            collection.close()

    def put(self, where: tuple[str, str], obj: Object) -> Object:
        """Stores `obj` (whose metadata the caller owns) under a new resourceVersion and returns it."""
        collection, meta = self.collection(where), obj["metadata"]
        key = key_of(meta.get("namespace", ""), meta["name"])
        previous = collection.get(key)
        self.revision += 1
        meta["resourceVersion"] = str(self.revision)
        kind = "ADDED" if previous is None else "MODIFIED"
        collection.record(Change(kind, self.revision, key, obj, previous))
        return obj

    def remove(self, where: tuple[str, str], obj: Object) -> Object:
        """Removes the stored `obj`; returns it as watchers see it, with the revision of its removal."""
        collection, meta = self.collection(where), obj["metadata"]
        key = key_of(meta.get("namespace", ""), meta["name"])
        previous = collection.get(key)
        self.revision += 1
        last = {**obj, "metadata": {**meta, "resourceVersion": str(self.revision)}}
        collection.record(Change("DELETED", self.revision, key, last, previous))
        return last
