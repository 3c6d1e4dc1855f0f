"""A lease a model, with a fencing token: who may change the model's traffic and records now.

A lease alone does not stop a holder that was paused, so every grant raises a fence first: the new token is
written to the model's channel, to the previous holder's record and to whatever else the caller guards (the
route) before `acquire` returns. Whatever an older holder then writes by compare-and-swap fails, even if it
had read before.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from trainyard.errors import Conflict, LeaseHeld, LeaseLost
from trainyard.store import keys
from trainyard.store.channels import Channels
from trainyard.store.documents import SCHEMA, decode, encode, take, timestamp
from trainyard.store.ledger import Ledger
from trainyard.store.objects import Objects

ATTEMPTS = 12


@dataclass(frozen=True)
class Lease:
    """holder: the release that holds it; run: which run of it, for people; expires_at: Unix seconds."""

    model: str
    holder: str
    token: int
    expires_at: float
    run: str = ""


@dataclass(frozen=True)
class _Grant:
    """What is stored. The token survives release, so that it only ever grows."""

    lease: Lease
    released: bool
    previous_holder: str

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "model": self.lease.model,
            "holder": self.lease.holder,
            "run": self.lease.run,
            "token": self.lease.token,
            "expires_at": self.lease.expires_at,
            "expires": timestamp(self.lease.expires_at),
            "released": self.released,
            "previous_holder": self.previous_holder,
        }

    @staticmethod
    def from_json(document: dict[str, Any], where: str) -> _Grant:
        lease = Lease(
            model=take(document, "model", str, where),
            holder=take(document, "holder", str, where),
            token=take(document, "token", int, where),
            expires_at=take(document, "expires_at", float, where),
            run=take(document, "run", str, where),
        )
        return _Grant(
            lease, take(document, "released", bool, where), take(document, "previous_holder", str, where)
        )

    def is_valid(self, now: float) -> bool:
        return not self.released and now < self.lease.expires_at


class Leases:
    """clock: Unix seconds; expiry is compared with it, so clocks of holders should agree within seconds.
    Safety does not rest on it: tokens do that.

    fence: raises the fence where S3 does not reach; called with (model, token) at every grant.
    ledger: of records that are signed; None for one that signs nothing.
    """

    def __init__(
        self,
        objects: Objects,
        clock: Callable[[], float] = time.time,
        *,
        fence: Callable[[str, int], None] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.objects, self.clock, self.fence = objects, clock, fence
        self.ledger = ledger or Ledger(objects)

    def acquire(self, model: str, holder: str, ttl_seconds: float, run: str = "") -> Lease:
        """Take the model's lease, or take it again: the same holder keeps its token.

        Raises LeaseHeld (with `retry_after`) while another holder's is valid.
        """
        keys.check_id("holder", holder)
        for _ in self._tries(model):
            grant, etag = self._read(model)
            now = self.clock()
            if grant is not None and grant.is_valid(now) and grant.lease.holder != holder:
                raise _held(grant.lease, now)
            wanted = _next_grant(grant, model, holder, now + ttl_seconds, run)
            if self._write(wanted, etag):
                self._raise_fence(wanted)
                return wanted.lease
        raise AssertionError("unreachable")

    def renew(self, lease: Lease, ttl_seconds: float) -> Lease:
        """Extend the lease. Raises LeaseLost if another holder has it, or it was released."""
        for _ in self._tries(lease.model):
            grant, etag = self._read(lease.model)
            if grant is None or not _is_ours(grant, lease) or grant.released:
                raise _lost(lease, grant)
            extended = replace(grant, lease=replace(grant.lease, expires_at=self.clock() + ttl_seconds))
            if self._write(extended, etag):
                return extended.lease
        raise AssertionError("unreachable")

    def release(self, lease: Lease) -> None:
        """Give it back; the token counter stays. Not ours any more, or given back already: nothing to do."""
        for _ in self._tries(lease.model):
            grant, etag = self._read(lease.model)
            if grant is None or not _is_ours(grant, lease) or grant.released:
                return
            if self._write(replace(grant, released=True), etag):
                return

    def check(self, lease: Lease) -> None:
        """Raises LeaseLost unless the lease is the valid one now."""
        grant, _ = self._read(lease.model)
        if grant is None or not _is_ours(grant, lease) or not grant.is_valid(self.clock()):
            raise _lost(lease, grant)

    def current(self, model: str) -> Lease | None:
        """The valid lease, if there is one."""
        grant, _ = self._read(model)
        return grant.lease if grant is not None and grant.is_valid(self.clock()) else None

    def last(self, model: str) -> Lease | None:
        """The lease that was given out last, valid or run out; None where it was given back, or never
        given."""
        grant, _ = self._read(model)
        return None if grant is None or grant.released else grant.lease

    def _read(self, model: str) -> tuple[_Grant | None, str]:
        key = keys.lease(model)
        stored = self.objects.get_or_none(key)
        if stored is None:
            return None, ""
        return _Grant.from_json(decode(stored.body, key), key), stored.etag

    def _write(self, grant: _Grant, etag: str) -> bool:
        key, body = keys.lease(grant.lease.model), encode(grant.to_json())
        try:
            if etag:
                self.objects.replace(key, body, etag)
            else:
                self.objects.put_new(key, body)
        except Conflict:
            return False
        return True

    def _raise_fence(self, grant: _Grant) -> None:
        lease = grant.lease
        Channels(self.objects, self.clock).fence(lease.model, lease.token)
        if grant.previous_holder and grant.previous_holder != lease.holder:
            self.ledger.fence(lease.model, grant.previous_holder, lease.token)
        if self.fence is not None:
            self.fence(lease.model, lease.token)

    def _tries(self, model: str) -> Iterator[int]:
        for attempt in range(ATTEMPTS):
            yield attempt
            time.sleep(random.uniform(0, 0.02) * 2 ** min(attempt, 6))
        raise Conflict(f"{keys.lease(model)} was changed by others {ATTEMPTS} times in a row. Retry.")


def _next_grant(grant: _Grant | None, model: str, holder: str, expires_at: float, run: str) -> _Grant:
    if grant is None:
        return _Grant(Lease(model, holder, 1, expires_at, run), False, "")
    if grant.lease.holder == holder and not grant.released:
        return replace(grant, lease=replace(grant.lease, expires_at=expires_at, run=run))
    lease = Lease(model, holder, grant.lease.token + 1, expires_at, run)
    return _Grant(lease, False, grant.lease.holder)


def _is_ours(grant: _Grant, lease: Lease) -> bool:
    return (grant.lease.holder, grant.lease.token) == (lease.holder, lease.token)


def _held(lease: Lease, now: float) -> LeaseHeld:
    by = f"{lease.holder} ({lease.run})" if lease.run else lease.holder
    return LeaseHeld(
        f"The lease of {lease.model} is held by {by} until {timestamp(lease.expires_at)}. "
        "Wait for that release to end, or stop its run.",
        retry_after=max(1.0, lease.expires_at - now),
    )


def _lost(lease: Lease, grant: _Grant | None) -> LeaseLost:
    if grant is None:
        now = "nobody has it"
    elif _is_ours(grant, lease):
        now = "it was released" if grant.released else f"it expired at {timestamp(grant.lease.expires_at)}"
    else:
        now = f"{grant.lease.holder} has token {grant.lease.token}"
    return LeaseLost(
        f"{lease.holder} lost the lease of {lease.model} (its token is {lease.token}; {now}). "
        "It may change nothing more. Start a new run if it is still wanted."
    )
