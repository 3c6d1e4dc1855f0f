"""Two holders, one clock, pauses anywhere: what a lease promises, whatever the order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.memory_objects import MemoryObjects
from trainyard.errors import LeaseHeld, LeaseLost
from trainyard.store.channels import Channels
from trainyard.store.leases import Lease, Leases
from trainyard.store.ledger import Ledger

HOLDERS = st.sampled_from(["release-a", "release-b"])
TTL = 10.0
MODEL = "llama"


class TwoHolders(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.now = 1000.0
        self.objects = MemoryObjects()
        self.leases = Leases(self.objects, lambda: self.now)
        self.channels = Channels(self.objects, lambda: self.now)
        self.ledger = Ledger(self.objects)
        self.held: dict[str, Lease] = {}
        self.owner_of_token: dict[int, str] = {}
        self.newest = 0
        for holder in ("release-a", "release-b"):
            self.ledger.create(MODEL, holder, {"schema": 1, "writes": 0})

    @rule(seconds=st.sampled_from([1.0, 5.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(holder=HOLDERS)
    def acquire(self, holder: str) -> None:
        other = "release-b" if holder == "release-a" else "release-a"
        try:
            lease = self.leases.acquire(MODEL, holder, TTL)
        except LeaseHeld:
            assert self._is_valid(other)
            return
        assert not self._is_valid(other)
        assert self.owner_of_token.setdefault(lease.token, holder) == holder
        assert lease.token >= self.newest
        self.newest = lease.token
        self.held[holder] = lease

    @rule(holder=HOLDERS)
    def renew(self, holder: str) -> None:
        if holder not in self.held:
            return
        try:
            self.held[holder] = self.leases.renew(self.held[holder], TTL)
        except LeaseLost:
            del self.held[holder]
        else:
            assert self.held[holder].token == self.newest

    @rule(holder=HOLDERS)
    def release(self, holder: str) -> None:
        if holder in self.held:
            self.leases.release(self.held[holder])
            self.leases.release(self.held[holder])

    @rule(holder=HOLDERS, paused=st.booleans())
    def change_the_channel(self, holder: str, paused: bool) -> None:
        self._change(holder, paused, lambda token: self.channels.move(MODEL, holder, token))

    @rule(holder=HOLDERS, paused=st.booleans())
    def change_its_record(self, holder: str, paused: bool) -> None:
        def count(document: dict[str, int]) -> dict[str, int]:
            return {**document, "writes": document["writes"] + 1}

        self._change(holder, paused, lambda token: self.ledger.update(MODEL, holder, count, token))

    def _change(self, holder: str, paused: bool, change: object) -> None:
        """Write with the token that `holder` believes in; maybe it sleeps between its last look and its
        write."""
        lease = self.held.get(holder)
        if lease is None:
            return
        other = "release-b" if holder == "release-a" else "release-a"

        def sleep_through_a_takeover() -> None:
            self.now += TTL + 1
            self.acquire(other)

        self.objects.before_write = sleep_through_a_takeover if paused else None
        try:
            change(lease.token)  # type: ignore[operator]
        except LeaseLost:
            assert lease.token < self.newest
        else:
            assert lease.token == self.newest, "a holder that was overtaken changed something"
        finally:
            self.objects.before_write = None

    @invariant()
    def at_most_one_is_valid(self) -> None:
        if hasattr(self, "held"):
            assert sum(self._is_valid(holder) for holder in self.held) <= 1

    def _is_valid(self, holder: str) -> bool:
        lease = self.held.get(holder)
        if lease is None:
            return False
        try:
            self.leases.check(lease)
        except LeaseLost:
            return False
        return True


TwoHolders.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestTwoHolders = TwoHolders.TestCase
