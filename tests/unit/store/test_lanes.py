"""How many connections read at once."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.store.lanes import SETTLED_SECONDS, WINDOW_SECONDS, Lanes


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def never() -> None:
    pass


def run(lanes: Lanes, clock: Clock, seconds: float, rate_of: dict[int, float]) -> list[int]:
    """All connections are always in use; returns the limit after each window."""
    limits, taken = [], 0
    for _ in range(int(seconds / WINDOW_SECONDS)):
        while lanes.spare():
            taken += 1
        while taken > lanes.limit:
            lanes.give()
            taken -= 1
        clock.now += WINDOW_SECONDS
        lanes.moved(int(rate_of[lanes.limit] * WINDOW_SECONDS))
        limits.append(lanes.limit)
    return limits


def test_where_each_connection_has_a_rate_of_its_own_there_come_to_be_as_many_as_allowed() -> None:
    clock = Clock()
    lanes = Lanes(4, 32, clock)
    limits = run(lanes, clock, 10, {count: count * 90e6 for count in range(1, 33)})
    assert limits[0] == 6
    assert set(limits[7:]) == {32}


def test_where_more_of_them_do_not_help_it_stays_at_the_first() -> None:
    clock = Clock()
    lanes = Lanes(2, 8, clock)
    limits = run(lanes, clock, 10, dict.fromkeys(range(1, 9), 800e6))
    assert limits[0] == 3, "it tries more once"
    assert set(limits[1:]) == {2}


def test_what_did_not_help_is_tried_again_later() -> None:
    clock = Clock()
    lanes = Lanes(2, 8, clock)
    run(lanes, clock, 3, dict.fromkeys(range(1, 9), 800e6))
    assert lanes.limit == 2
    later = run(lanes, clock, SETTLED_SECONDS + 10, {count: count * 90e6 for count in range(1, 9)})
    assert max(later) == 8


def test_a_rate_of_connections_that_were_idle_decides_nothing() -> None:
    clock = Clock()
    lanes = Lanes(2, 8, clock)
    with lanes.one(never):
        for _ in range(5):
            clock.now += WINDOW_SECONDS
            lanes.moved(1 << 30)
    assert lanes.limit == 2


def test_nobody_is_overtaken_by_spare_connections() -> None:
    lanes = Lanes(1, 1)
    got = threading.Event()

    def wait() -> None:
        with lanes.one(never):
            got.set()

    assert lanes.spare()
    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not got.wait(0.05)
    lanes.give()
    waiter.join(60)
    assert got.is_set()


def test_whoever_waits_can_be_stopped() -> None:
    lanes = Lanes(1, 1)
    assert lanes.spare()

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), lanes.one(stop):
        pass
    lanes.give()
    assert lanes.spare(), "who gave up holds none"


@given(rates=st.lists(st.integers(0, 10**9), max_size=60), first=st.integers(1, 40), most=st.integers(1, 32))
def test_the_limit_stays_between_one_and_the_most(rates: list[int], first: int, most: int) -> None:
    clock = Clock()
    lanes = Lanes(first, most, clock)
    for rate in rates:
        while lanes.spare():
            pass
        clock.now += WINDOW_SECONDS
        lanes.moved(rate)
        assert 1 <= lanes.limit <= most
