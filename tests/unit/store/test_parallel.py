from __future__ import annotations

import threading

import pytest

from trainyard.store import parallel
from trainyard.store.parallel import Stop, run_all


def test_results_keep_the_order_of_the_tasks() -> None:
    assert run_all([lambda number=number: number * 2 for number in range(20)], 4, Stop()) == list(
        range(0, 40, 2)
    )


def test_the_first_failure_is_raised_and_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "GRACE_SECONDS", 60.0)  # on a machine that has time it takes none
    stop, started, cancelled = Stop(), threading.Event(), threading.Event()

    def patient() -> None:
        started.set()
        try:
            while True:
                stop.check()
        except parallel.Cancelled:
            cancelled.set()
            raise

    def failing() -> None:
        started.wait(60)
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        run_all([patient, failing], 2, stop)
    assert cancelled.is_set()


def test_one_that_hangs_does_not_keep_the_failure_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "GRACE_SECONDS", 0.05)
    release = threading.Event()

    def failing() -> None:
        raise ValueError("the reason")

    try:
        with pytest.raises(ValueError, match="the reason"):
            run_all([lambda: release.wait(120), failing], 2, Stop())
    finally:
        release.set()


def test_the_failure_is_raised_and_not_the_word_to_stop_that_it_caused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "GRACE_SECONDS", 60.0)
    stop, others_ended = Stop(), threading.Event()

    def follow() -> None:
        try:
            while True:
                stop.check()
        finally:
            others_ended.set()

    def fail() -> None:
        stop.set()  # as transfers do that tell their siblings themselves
        others_ended.wait(60)
        threading.Event().wait(0.05)  # the sibling's end is known before this one's
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        run_all([follow, fail], 2, stop)
