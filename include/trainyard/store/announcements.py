"""How publishers and the sweep stay out of each other's way, without either waiting for the other to end.

publishing/<id>.json   what a publisher relies on: written before it looks whether a blob is there already
sweep/condemned.json   what a sweep is about to delete: written before it looks who publishes

A publisher announces, then reads what is condemned; the sweep condemns, then reads what is announced. So of a
publisher and a sweep that want the same blob at least one sees the other: the sweep spares what is announced,
and the publisher waits until what it needs is deleted, or condemned no more, before it looks whether it is
there. Neither rests on clocks agreeing; only a sweep that died is waited for by the clock.

An announcement is never withdrawn, only left behind: a manifest that was published after the sweep had read
all manifests is protected by it. The sweep removes announcements that are older than its grace period.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact, LeaseHeld, LeaseLost, StoreUnavailable
from trainyard.store import blobs, keys
from trainyard.store.documents import SCHEMA, decode, encode, take, timestamp
from trainyard.store.objects import Objects

PREFIX = "publishing/"
CONDEMNED = "sweep/condemned.json"
# A batch of deletions is one request; a sweep that needs longer for one has died, or is cut off.
BATCH_SECONDS = 60.0
# How far the clocks of a publisher and a sweep may be apart.
SKEW_SECONDS = 30.0
RENEW_SECONDS = 1800.0


class Announcement:
    """What one publisher relies on. Thread-safe.

    Call `protect` with the keys (blobs, manifests) before looking whether they are there, and from time to
    time while a long transfer runs.
    """

    def __init__(
        self,
        objects: Objects,
        who: str,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.objects, self.who = objects, who
        self.key = f"{PREFIX}{uuid.uuid4().hex}.json"
        self.keys: set[str] = set()
        self.clock, self.monotonic, self.sleep = clock, monotonic, sleep
        self._written: float | None = None
        self._lock = threading.Lock()

    def protect(self, wanted: Iterable[str]) -> None:
        """From now on no sweep deletes these keys. Raises StoreUnavailable if a sweep comes to no end."""
        with self._lock:
            new = set(wanted) - self.keys
            stale = self._written is None or self.monotonic() - self._written > RENEW_SECONDS
            if not new and not stale:
                return
            self.keys |= new
            document = {"schema": SCHEMA, "who": self.who, "at": timestamp(self.clock())}
            self.objects.put(self.key, encode({**document, "keys": sorted(self.keys)}))
            self._written = self.monotonic()
        if new:
            wait_until_free(self.objects, new, clock=self.clock, sleep=self.sleep)

    def has_blob(self, digest: str, size: int) -> bool:
        """Is the blob there, and will it stay? One that is not there needs no announcement: what is written
        now is too young for any sweep."""
        if not blobs.has_blob(self.objects, digest, size):
            return False
        self.protect_blobs([digest])
        return blobs.has_blob(self.objects, digest, size)

    def protect_blobs(self, digests: Iterable[str]) -> None:
        self.protect(keys.blob(digest) for digest in digests)


def wait_until_free(
    objects: Objects,
    wanted: Iterable[str],
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Returns once no sweep is about to delete any of these keys. For who is announced in another way, such
    as by a record of a running release. Raises StoreUnavailable."""
    needed = set(wanted)
    for _ in range(2000):
        condemned = read_condemned(objects)
        if condemned is None or not needed & condemned.keys or clock() > condemned.until + SKEW_SECONDS:
            return
        sleep(random.uniform(0.02, 0.1))
    raise StoreUnavailable(
        f"A sweep has been about to delete what is needed here for too long: see s3://{objects.bucket}/"
        f"{CONDEMNED}. Delete that object if no housekeeping runs."
    )


def announced(objects: Objects, since: float, known: dict[str, frozenset[str]] | None = None) -> set[str]:
    """Keys that publishers rely on, by announcements not older than `since` (Unix seconds by S3's clock).

    known: by announcement and version, what was read before; filled.
    """
    cache = {} if known is None else known
    found: set[str] = set()
    for info in objects.list(PREFIX):
        if info.modified < since:
            continue
        version = f"{info.key} {info.etag}"
        if version not in cache:
            stored = objects.get_or_none(info.key)
            if stored is None:
                continue
            document = decode(stored.body, info.key)
            cache[version] = frozenset(str(key) for key in take(document, "keys", list, info.key))
        found |= cache[version]
    return found


@dataclass(frozen=True)
class Condemned:
    """keys that a sweep is about to delete; until: Unix seconds, after which it deletes none of them."""

    sweep: str
    until: float
    keys: frozenset[str]

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "sweep": self.sweep, "until": self.until, "keys": sorted(self.keys)}


def read_condemned(objects: Objects) -> Condemned | None:
    stored = objects.get_or_none(CONDEMNED)
    return None if stored is None else _condemned(stored.body)


def _condemned(body: bytes) -> Condemned:
    document = decode(body, CONDEMNED)
    return Condemned(
        take(document, "sweep", str, CONDEMNED),
        take(document, "until", float, CONDEMNED),
        frozenset(str(key) for key in take(document, "keys", list, CONDEMNED)),
    )


@dataclass
class Condemning:
    """One sweep's right to condemn, batch after batch. One sweep at a time: the other raises LeaseHeld."""

    objects: Objects
    sweep: str = field(default_factory=lambda: uuid.uuid4().hex)
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _etag: str = ""
    _until: float = 0.0

    def condemn(self, batch: Iterable[str]) -> None:
        """Announces what will be deleted now. Raises LeaseHeld; LeaseLost if another sweep took over."""
        until = self.clock() + BATCH_SECONDS
        self._write(Condemned(self.sweep, until, frozenset(batch)))
        self._until = self.monotonic() + BATCH_SECONDS

    def check(self) -> None:
        """Right before deleting. Raises LeaseLost when that took too long: publishers wait no more."""
        if self.monotonic() > self._until - BATCH_SECONDS / 2:
            raise LeaseLost(
                "The sweep was paused between condemning and deleting; nothing of this batch was deleted. "
                "Run housekeeping again."
            )

    def end(self) -> None:
        """Nothing is condemned any more."""
        if self._etag:
            self._write(Condemned(self.sweep, self.clock(), frozenset()))

    def _write(self, condemned: Condemned) -> None:
        body = encode(condemned.to_json())
        try:
            if not self._etag:
                self._etag = self._take(body)
            else:
                self._etag = self.objects.replace(CONDEMNED, body, self._etag)
        except Conflict as error:
            raise LeaseLost(
                f"Another sweep took over ({CONDEMNED} was changed). It goes on with what is left."
            ) from error

    def _take(self, body: bytes) -> str:
        stored = self.objects.get_or_none(CONDEMNED)
        if stored is None:
            return self.objects.put_new(CONDEMNED, body)
        try:
            other: Condemned | None = _condemned(stored.body)
        except CorruptArtifact:
            other = None  # what cannot be read holds nobody back
        if other is not None and other.keys and self.clock() <= other.until + SKEW_SECONDS:
            raise LeaseHeld(
                f"Another sweep runs (until {timestamp(other.until)} at least). Let it end.",
                retry_after=BATCH_SECONDS,
            )
        return self.objects.replace(CONDEMNED, body, stored.etag)
