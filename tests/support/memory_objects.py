"""`Objects` in memory, for tests that need thousands of steps. The contract tests hold it against the real
server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from trainyard.errors import Conflict, NotFound
from trainyard.store.objects import AlreadyExists, ObjectInfo, Objects, Stored


class MemoryObjects(Objects):
    """before_write: called once, right before the next conditional write takes effect; then forgotten."""

    def __init__(self) -> None:
        super().__init__(None, "memory")
        self.content: dict[str, bytes] = {}
        self.before_write: Callable[[], None] | None = None

    def get(self, key: str) -> Stored:
        if key not in self.content:
            raise NotFound(f"{key}: nothing there.")
        return Stored(self.content[key], _etag(self.content[key]))

    def head(self, key: str) -> ObjectInfo:
        stored = self.get(key)
        return ObjectInfo(key, len(stored.body), stored.etag, 0.0)

    def put(self, key: str, body: bytes) -> str:
        self.content[key] = body
        return _etag(body)

    def put_new(self, key: str, body: bytes) -> str:
        self._interrupt()
        if key in self.content:
            raise AlreadyExists(f"{key} exists already.")
        return self.put(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        self._interrupt()
        if key not in self.content or _etag(self.content[key]) != etag:
            raise Conflict(f"{key}: another version.")
        return self.put(key, body)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from [self.head(key) for key in sorted(self.content) if key.startswith(prefix)]

    def delete(self, key: str) -> None:
        self.content.pop(key, None)

    def _interrupt(self) -> None:
        interruption, self.before_write = self.before_write, None
        if interruption:
            interruption()


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'
