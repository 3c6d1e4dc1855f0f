"""Ledger, channels and leases on the real server."""

from __future__ import annotations

import threading

import pytest

from trainyard.errors import Conflict, LeaseHeld, LeaseLost, NotFound, PermanentError, Refused
from trainyard.store.channels import Channels
from trainyard.store.leases import Leases
from trainyard.store.ledger import Ledger
from trainyard.store.objects import AlreadyExists, Objects

TTL = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(store: Objects, clock: Clock) -> Leases:
    return Leases(store, clock)


def test_a_record_is_created_once(store: Objects) -> None:
    ledger = Ledger(store)
    ledger.create("m", "r1", {"schema": 1, "state": "planned"})
    with pytest.raises(AlreadyExists):
        ledger.create("m", "r1", {"schema": 1})
    assert ledger.read("m", "r1").document["state"] == "planned"
    with pytest.raises(NotFound):
        ledger.read("m", "r2")
    with pytest.raises(PermanentError, match="schema"):
        ledger.create("m", "r3", {"state": "no schema"})
    with pytest.raises(Refused):
        ledger.read("m", "../r1")


def test_no_change_of_ten_writers_at_once_is_lost(store: Objects) -> None:
    ledger = Ledger(store)
    ledger.create("m", "r1", {"schema": 1, "seen": []})

    def note(number: int) -> None:
        ledger.update("m", "r1", lambda record: {**record, "seen": [*record["seen"], number]})

    threads = [threading.Thread(target=note, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ledger.read("m", "r1").document["seen"]) == list(range(6))


def test_a_change_that_changes_nothing_writes_nothing(store: Objects) -> None:
    ledger = Ledger(store)
    created = ledger.create("m", "r1", {"schema": 1})
    assert ledger.update("m", "r1", lambda record: record).etag == created.etag


def test_no_change_can_take_a_fence_away(store: Objects) -> None:
    ledger = Ledger(store)
    ledger.create("m", "r1", {"schema": 1})
    ledger.fence("m", "r1", 5)
    ledger.fence("m", "r1", 3)
    ledger.fence("m", "nothing", 5)
    ledger.update("m", "r1", lambda record: {"schema": 1, "fence_token": 0, "lease_token": 0})
    with pytest.raises(LeaseLost):
        ledger.update("m", "r1", lambda record: {**record, "x": 1}, 4)
    assert ledger.update("m", "r1", lambda record: {**record, "x": 1}, 5).document["lease_token"] == 5


def test_the_ledger_lists_a_models_records_only(store: Objects) -> None:
    ledger = Ledger(store)
    for model, release in (("m", "r2"), ("m", "r1"), ("m2", "r3")):
        ledger.create(model, release, {"schema": 1, "id": release})
    assert [found.document["id"] for found in ledger.list("m")] == ["r1", "r2"]
    assert ledger.list("nobody") == []


def test_a_held_lease_says_by_whom_and_until_when(leases: Leases) -> None:
    leases.acquire("m", "release-a", TTL, "manual__1")
    with pytest.raises(LeaseHeld, match=r"release-a \(manual__1\) until 2027-01-15T08:01:00Z") as caught:
        leases.acquire("m", "release-b", TTL)
    assert caught.value.retry_after == pytest.approx(TTL)


def test_the_same_holder_gets_its_own_token_again(leases: Leases) -> None:
    first = leases.acquire("m", "release-a", TTL)
    assert leases.acquire("m", "release-a", TTL).token == first.token


def test_a_released_lease_is_free_and_its_token_is_never_given_again(leases: Leases) -> None:
    first = leases.acquire("m", "release-a", TTL)
    leases.release(first)
    leases.release(first)
    assert leases.current("m") is None
    second = leases.acquire("m", "release-b", TTL)
    leases.release(first)
    leases.check(second)
    assert second.token > first.token
    leases.release(second)
    assert leases.acquire("m", "release-b", TTL).token > second.token


def test_a_holder_that_slept_through_its_lease_can_change_nothing(
    store: Objects, leases: Leases, clock: Clock
) -> None:
    ledger, channels = Ledger(store), Channels(store, clock)
    ledger.create("m", "release-a", {"schema": 1, "state": "running"})
    sleeper = leases.acquire("m", "release-a", TTL)
    clock.now += TTL + 1
    winner = leases.acquire("m", "release-b", TTL)
    attempts = (
        lambda: channels.move("m", "release-a", sleeper.token),
        lambda: ledger.update("m", "release-a", lambda record: {**record, "state": "x"}, sleeper.token),
        lambda: leases.renew(sleeper, TTL),
        lambda: leases.check(sleeper),
    )
    for attempt in attempts:
        with pytest.raises(LeaseLost):
            attempt()
    leases.release(sleeper)
    leases.check(winner)
    assert channels.read("m").stable is None
    record = ledger.read("m", "release-a").document
    assert record["state"] == "running"
    # Nor does its own record tell it the winner's token.
    assert record.get("lease_token") != winner.token


def test_of_eight_that_want_the_lease_at_once_one_gets_it(leases: Leases) -> None:
    got: list[str] = []

    def acquire(holder: str) -> None:
        try:
            leases.acquire("m", holder, TTL)
        except (LeaseHeld, Conflict):
            return
        got.append(holder)

    threads = [threading.Thread(target=acquire, args=(f"release-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lease = leases.current("m")
    assert lease is not None
    assert got == [lease.holder]


def test_a_channel_remembers_what_was_stable_before(store: Objects, clock: Clock) -> None:
    channels = Channels(store, clock)
    assert channels.read("m").stable is None
    channels.move("m", "r1", 1)
    channels.move("m", "r2", 2)
    again = channels.move("m", "r2", 2)
    assert (again.stable, again.previous, again.token) == ("r2", "r1", 2)
    assert [move.release for move in again.history] == ["r1", "r2"]
    with pytest.raises(LeaseLost):
        channels.move("m", "r1", 1)
    assert channels.read("m") == again
