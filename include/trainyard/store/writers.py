"""One writer a key: a lease in S3 that is renewed while its holder lives, and taken over when it died.

Unlike a model's lease it guards no traffic: what two writers of one key would make is the same, only twice
as dear. So there is no fence; who lost it does not write.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact, LeaseLost, TrainyardError
from trainyard.store import keys
from trainyard.store.documents import SCHEMA, decode, encode, take, timestamp
from trainyard.store.objects import Objects

# How far the clocks of two nodes may be apart before a look at `expires_at` misleads.
SKEW_SECONDS = 120.0


@dataclass(frozen=True)
class Held:
    """Who has a key: holder as it named itself; expires_at: Unix seconds by its own clock."""

    holder: str
    nonce: str
    expires_at: float
    released: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "holder": self.holder,
            "nonce": self.nonce,
            "expires_at": self.expires_at,
            "expires": timestamp(self.expires_at),
            "released": self.released,
        }

    @staticmethod
    def from_json(document: dict[str, Any], where: str) -> Held:
        return Held(
            take(document, "holder", str, where),
            take(document, "nonce", str, where),
            take(document, "expires_at", float, where),
            take(document, "released", bool, where),
        )


class WriterLease:
    """The lease at `key`, as one process sees it. Call `acquire` until it says yes.

    A holder is dead when its lease did not change for `ttl_seconds` while we looked, by our clock alone, or
    ran out long ago by its own. A holder of our own name (an earlier try) is replaced at once.
    """

    def __init__(
        self,
        objects: Objects,
        key: str,
        holder: str,
        ttl_seconds: float,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objects, self.key, self.ttl = objects, key, ttl_seconds
        self.holder = keys.check_id("holder", holder)
        self.nonce = uuid.uuid4().hex
        self.clock, self.monotonic = clock, monotonic
        self.other: Held | None = None
        self.took_over = ""
        self._etag: str | None = None
        self._seen: tuple[str, float] | None = None
        self._lock = threading.Lock()  # a heartbeat renews while its owner gives back

    @property
    def is_held(self) -> bool:
        """As far as we know: `renew` finds out."""
        return self._etag is not None

    def acquire(self) -> bool:
        """One try. False: `other` has it."""
        stored = self.objects.get_or_none(self.key)
        held = None if stored is None else self._read(stored.body)
        if held is not None and stored is not None and not self._is_free(held, stored.etag):
            self.other = held
            return False
        try:
            body = encode(self._grant().to_json())
            etag = stored.etag if stored else None
            self._etag = self.objects.replace(self.key, body, etag) if etag else self._create(body)
        except Conflict:
            return False
        if held is not None and not held.released and held.holder != self.holder:
            self.took_over = held.holder
        return True

    def renew(self) -> None:
        """Raises LeaseLost if another took it."""
        self._replace(self._grant())

    def release(self) -> None:
        """Give it back; lost already is fine."""
        try:
            self._replace(Held(self.holder, self.nonce, self.clock(), released=True))
        except LeaseLost:
            return

    def _read(self, body: bytes) -> Held | None:
        try:
            return Held.from_json(decode(body, self.key), self.key)
        except CorruptArtifact:
            return None  # what cannot be read holds nobody back

    def _grant(self) -> Held:
        return Held(self.holder, self.nonce, self.clock() + self.ttl, released=False)

    def _create(self, body: bytes) -> str:
        return self.objects.put_new(self.key, body)

    def _replace(self, held: Held) -> None:
        with self._lock:
            if self._etag is None:
                raise LeaseLost(f"{self.key}: not held by {self.holder}.")
            try:
                etag = self.objects.replace(self.key, encode(held.to_json()), self._etag)
            except Conflict as error:
                self._etag = None
                raise LeaseLost(f"{self.key}: another writer took it from {self.holder}.") from error
            self._etag = None if held.released else etag

    def _is_free(self, held: Held, etag: str) -> bool:
        if held.released or held.holder == self.holder:
            return True
        now = self.monotonic()
        if self._seen is None or self._seen[0] != etag:
            self._seen = (etag, now)
        return now - self._seen[1] > self.ttl or self.clock() > held.expires_at + SKEW_SECONDS


class Heartbeat:
    """Renews a lease from a thread while the block runs, until it is lost or given back.

    A store that does not answer is asked again: within the lease's time that harms nobody.
    """

    def __init__(self, lease: WriterLease) -> None:
        self.lease = lease
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="writer-lease", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # A renewal that hangs must not keep a pod that is told to stop.
        self._thread.join(timeout=3.0)

    def _beat(self) -> None:
        while not self._ended.wait(self.lease.ttl / 3):
            try:
                self.lease.renew()
            except LeaseLost:
                return
            except TrainyardError:
                continue
