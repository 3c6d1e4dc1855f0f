"""Rows on disk, and what is counted of them while a test runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.bench.progress import Progress, together
from trainyard.bench.rows import Rows, Tail, moved
from trainyard.bench.samples import Sample, unpack
from trainyard.bench.sketch import Sketch
from trainyard.bench.summary import summarize_arm, values


def sample(number: int, started: float, arm: str = "canary", tokens: int = 2) -> Sample:
    return Sample(
        arm=arm,
        pair=number,
        started=started,
        connected=0.001,
        ttft=0.02,
        e2e=0.02 + 0.01 * number,
        output_tokens=1 + 2 * tokens,
        chunk_times=(0.02, 0.02 + 0.004 * number, 0.02 + 0.01 * number),
        chunk_tokens=(1, tokens, tokens),
        ok=True,
        detail='it said "started":99',
    )


def line(one: Sample) -> bytes:
    return json.dumps(one.to_row(), separators=(",", ":")).encode() + b"\n"


def write(path: Path, samples: list[Sample]) -> Path:
    path.write_bytes(b"".join(map(line, samples)))
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    one = write(tmp_path / "one", [sample(1, 5.0), sample(3, 7.5)])
    return Rows([one, write(tmp_path / "two", [sample(2, 6.0, "baseline"), sample(4, 4.0, tokens=3)])])


def test_rows_of_all_files_come_in_the_order_of_their_start(rows: Rows) -> None:
    assert [found.pair for found in rows.samples()] == [4, 1, 2, 3]
    assert len(rows) == 4


def test_what_is_packed_unpacks_to_the_same_and_always_to_the_same_bytes(rows: Rows, tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows.pack(tmp_path / name)
    assert unpack((tmp_path / "a").read_bytes()) == list(rows.samples())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_samples_held_in_little_memory_give_the_same_figures(rows: Rows) -> None:
    exact = summarize_arm(list(rows.samples()))
    assert summarize_arm(rows.held()) == exact
    outlined = summarize_arm(rows.held(detailed=False))
    assert outlined.pop("itl") == {"count": 0}
    assert outlined == {key: value for key, value in exact.items() if key != "itl"}


def test_a_torn_last_row_is_left_out_and_a_foreign_line_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "torn", [sample(1, 1.0), sample(2, 2.0)])
    path.write_bytes(path.read_bytes()[:-20])
    assert [found.pair for found in Rows([path]).samples()] == [1]
    path.write_bytes(b"Traceback\n")
    with pytest.raises(ValueError, match=r"torn, line 1 is no row: b'Traceback"):
        Rows([path])


def test_a_tail_gives_each_complete_line_once_however_it_arrives(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.touch()
    tail, found = Tail(path), []
    whole = b"".join(b"%d\n" % number for number in range(500))
    for start in range(0, len(whole), 7):
        with path.open("ab") as file:
            file.write(whole[start : start + 7])
        found += tail.lines(most=64)
    while lines := tail.lines(most=64):
        found += lines
    assert found == whole.split()


@given(st.floats(min_value=0, max_value=1e6), st.floats(min_value=-1e6, max_value=1e6))
def test_a_row_moves_to_another_clock_and_keeps_all_else(started: float, ahead: float) -> None:
    before = sample(1, started)
    after = Sample.from_row(json.loads(moved(line(before), ahead)))
    assert after.started == pytest.approx(started + ahead, abs=1e-6)
    assert {**after.to_row(), "started": started} == before.to_row()


def test_progress_of_several_processes_is_that_of_one_which_saw_all() -> None:
    samples = [sample(number, 1.0, arm) for number in range(1, 30) for arm in ("canary", "baseline")]
    samples.append(Sample(arm="canary", started=1.0, error="cut"))
    parts = [Progress() for _ in range(4)]
    for number, one in enumerate(samples):
        parts[number % 4].count([line(one)])
    total = together(Progress.from_dict(json.loads(json.dumps(part.to_dict()))) for part in parts)
    arm = total.arms["canary"]
    assert (arm.requests, arm.failures) == (30, {"cut": 1})
    for metric, sketch in arm.times.items():
        assert sketch == Sketch(values([s for s in samples if s.arm == "canary"], metric))
    assert total.words().startswith("baseline: 29 requests, ttft p50 20.0 p99 20.0 ms, itl p50 ")
    assert "; canary: 30 requests, 1 failed, ttft" in total.words()


def test_progress_before_the_first_answer_says_so() -> None:
    assert Progress().words() == "no answer yet"
