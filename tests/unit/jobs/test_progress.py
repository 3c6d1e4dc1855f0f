from __future__ import annotations

import time

import pytest

from trainyard.jobs.progress import Progress


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_line_says_how_much_how_fast_and_how_long_still(at: list[float]) -> None:
    progress = Progress("fetch x", 40 << 20, 4, every=60)
    progress.began = at[0]
    progress.add(10 << 20)
    progress.finish_file()
    at[0] += 10
    assert progress.line() == "fetch x: 10.0 MiB of 40.0 MiB, 1.0 MiB/s, 1 of 4 files, 30 s left"


def test_what_need_not_be_moved_counts_as_done_but_not_as_speed(at: list[float]) -> None:
    progress = Progress("fetch x", 40 << 20, 4, every=60)
    progress.began = at[0]
    progress.skip(30 << 20)
    progress.add(5 << 20)
    at[0] += 5
    assert progress.line() == "fetch x: 35.0 MiB of 40.0 MiB, 1.0 MiB/s, 5 s left"


def test_nothing_moved_yet_gives_no_time_left(at: list[float]) -> None:
    progress = Progress("fetch x", 1000, 1, every=60)
    progress.began = at[0]
    assert progress.line() == "fetch x: 0 B of 1000 B, 0 B/s"
