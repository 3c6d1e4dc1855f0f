"""One writer a key."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.memory_objects import MemoryObjects
from trainyard.store.writers import SKEW_SECONDS, WriterLease

KEY, TTL = "compile-cache/c0/writer.json", 60.0


class Clocks:
    """One time for all; each process may add what its clock is wrong by."""

    def __init__(self) -> None:
        self.now = 1000.0

    def lease(self, store: MemoryObjects, holder: str, skew: float = 0.0) -> WriterLease:
        return WriterLease(store, KEY, holder, TTL, clock=lambda: self.now + skew, monotonic=lambda: self.now)


def test_the_second_waits_until_the_first_gives_it_back() -> None:
    store, clocks = MemoryObjects(), Clocks()
    first, second = clocks.lease(store, "r1"), clocks.lease(store, "r2")
    assert first.acquire()
    assert not second.acquire()
    assert second.other is not None
    assert second.other.holder == "r1"
    first.release()
    assert second.acquire()
    assert second.took_over == ""


def test_a_holder_that_is_silent_while_we_look_is_dead_whatever_its_clock_said() -> None:
    store, clocks = MemoryObjects(), Clocks()
    assert clocks.lease(store, "r1", skew=1e9).acquire()
    second = clocks.lease(store, "r2")
    assert not second.acquire()
    clocks.now += TTL + 1
    assert second.acquire()
    assert second.took_over == "r1"


def test_a_holder_that_renews_is_waited_for() -> None:
    store, clocks = MemoryObjects(), Clocks()
    first, second = clocks.lease(store, "r1"), clocks.lease(store, "r2")
    first.acquire()
    for _ in range(20):
        clocks.now += TTL / 2
        first.renew()
        assert not second.acquire()


def test_a_lease_that_ran_out_long_ago_is_taken_at_the_first_look() -> None:
    store, clocks = MemoryObjects(), Clocks()
    clocks.lease(store, "r1").acquire()
    clocks.now += TTL + SKEW_SECONDS + 1
    assert clocks.lease(store, "r2").acquire()


def test_who_lost_it_cannot_renew_nor_give_back_anothers() -> None:
    store, clocks = MemoryObjects(), Clocks()
    first, second = clocks.lease(store, "r1"), clocks.lease(store, "r1")
    first.acquire()
    # The same release, another pod: the first one's node is not heard of any more.
    assert second.acquire()
    first.release()
    assert not first.is_held
    second.renew()


def test_what_cannot_be_read_holds_nobody_back() -> None:
    store, clocks = MemoryObjects(), Clocks()
    store.put(KEY, b"{ half")
    assert clocks.lease(store, "r1").acquire()


def test_of_two_that_come_at_once_one_gets_it() -> None:
    store, clocks = MemoryObjects(), Clocks()
    first, second = clocks.lease(store, "r1"), clocks.lease(store, "r2")
    store.before_write = lambda: assert_true(second.acquire())
    assert not first.acquire()
    assert second.is_held


def assert_true(value: bool) -> None:
    assert value


class Pods(RuleBasedStateMachine):
    """Pods come, work, pause, die. Among those that renew in time there is never more than one writer."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.clocks = MemoryObjects(), Clocks()
        self.pods = {name: self.clocks.lease(self.store, name) for name in ("r1", "r2", "r3")}
        self.alive: dict[str, float] = {}

    @rule(name=st.sampled_from(["r1", "r2", "r3"]))
    def tries(self, name: str) -> None:
        if name not in self.alive and self.pods[name].acquire():
            self.alive[name] = self.clocks.now

    @rule(name=st.sampled_from(["r1", "r2", "r3"]))
    def dies(self, name: str) -> None:
        self.alive.pop(name, None)
        self.pods[name] = self.clocks.lease(self.store, name)

    @precondition(lambda self: self.alive)
    @rule()
    def gives_back(self) -> None:
        name, _ = self.alive.popitem()
        self.pods[name].release()

    @rule(seconds=st.floats(0, TTL / 2))
    def time_passes(self, seconds: float) -> None:
        self.clocks.now += seconds
        for name in list(self.alive):
            self.pods[name].renew()

    @invariant()
    def one_writer(self) -> None:
        assert len(self.alive) <= 1


Pods.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_pods = Pods.TestCase
