"""How pods of one load test meet, and what becomes of it when one of them does not do its part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.memory_objects import MemoryObjects
from trainyard.bench.crew import Known, Share
from trainyard.bench.load import Taken
from trainyard.bench.progress import Progress
from trainyard.bench.rows import Rows
from trainyard.bench.samples import Sample
from trainyard.bench.workload import Workload
from trainyard.errors import PermanentError, Refused, StoreUnavailable, TransientError
from trainyard.jobs.crew import MeetingPlace
from trainyard.jobs.terms import Terms

NOTHING = Known(Progress())


class Clock:
    """Both clocks of a machine. ahead: what its wall clock is wrong by."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.now, self.ahead = 1000.0, ahead

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now + self.ahead


@pytest.fixture
def store() -> MemoryObjects:
    return MemoryObjects()


def member(
    store: MemoryObjects, clock: Clock, index: int, of: int = 2, attempt: str = "a", **terms: Any
) -> MeetingPlace:
    said = Terms(index=index, of=of, attempt=attempt, **terms)
    return MeetingPlace(store, "t/", said, wall=clock.wall, clock=clock.monotonic)


@pytest.fixture
def pair(store: MemoryObjects, tmp_path: Path) -> tuple[MeetingPlace, MeetingPlace, Clock]:
    """Leader and worker, on their way."""
    clock = Clock()
    leader, worker = member(store, clock, 0), member(store, clock, 1)
    for number, one in enumerate((leader, worker)):
        (tmp_path / str(number)).mkdir()
        one.ready(tmp_path / str(number))
    clock.now += 1
    assert worker.go() is None  # not before the leader has said so
    clock.now += 1
    at = leader.go()
    clock.now += 1
    assert at == worker.go() == clock.wall() + 2
    return leader, worker, clock


def row(pair_number: int, started: float) -> bytes:
    sample = Sample(arm="canary", pair=pair_number, started=started, ok=True, ttft=0.02, e2e=0.1)
    return json.dumps(sample.to_row(), separators=(",", ":")).encode()


def taken(folder: Path, began: float, lines: list[bytes]) -> Taken:
    own = folder / "samples-0.ndjson"
    own.write_bytes(b"".join(line + b"\n" for line in lines))
    seen = Progress()
    seen.count(lines)
    return Taken(folder, (own,), ({"cpu_share": 0.1},), began, seen)


def test_what_all_measured_comes_together_on_the_leaders_clock(
    pair: tuple[MeetingPlace, MeetingPlace, Clock], store: MemoryObjects, tmp_path: Path
) -> None:
    leader, worker, _ = pair
    # Their monotonic clocks have nothing in common; both began at 500 and 90,000.
    first, later, ours = row(1, 90_000.5), row(3, 90_002.5), row(0, 500.0)
    seen = Progress()
    seen.count([first])
    worker.beat([first], Known(seen), 90_000.0)
    known = leader.beat([ours], NOTHING, 500.0)
    assert known.seen.arms["canary"].requests == 1
    (arriving,) = leader.files
    assert arriving.read_bytes().count(b"\n") == 1  # while the test goes on
    worker.beat([later], Known(seen), 90_000.0)
    worker.finish(taken(tmp_path / "1", 90_000.0, [first, later]))
    whole = leader.gather(taken(tmp_path / "0", 500.0, [ours]))
    samples = list(Rows(whole.files).samples())
    assert [(sample.pair, sample.started) for sample in samples] == [(0, 500.0), (1, 500.5), (3, 502.5)]
    assert len(whole.readings) == 2
    assert whole.seen.arms["canary"].requests == whole.seen.arms["canary"].times["ttft"].count == 3
    leader.clean()
    assert not store.content


def test_a_worker_that_does_not_turn_up_is_named(store: MemoryObjects, tmp_path: Path) -> None:
    clock = Clock()
    leader = member(store, clock, 0, of=4, ready_seconds=60)
    leader.ready(tmp_path)
    member(store, clock, 2, of=4).ready(tmp_path)
    clock.now += 59
    assert leader.go() is None
    clock.now += 2
    with pytest.raises(TransientError, match=r"workers 1, 3 of the load test did not turn up within 60 s"):
        leader.go()


def test_a_leader_that_does_not_begin_is_given_up(store: MemoryObjects, tmp_path: Path) -> None:
    clock = Clock()
    worker = member(store, clock, 1, ready_seconds=60, silence_seconds=40)
    worker.ready(tmp_path)
    clock.now += 101
    with pytest.raises(TransientError, match=r"worker 0 of the load test did not begin"):
        worker.go()


def test_a_worker_that_falls_silent_is_named_and_one_that_only_waits_is_not(
    pair: tuple[MeetingPlace, MeetingPlace, Clock],
) -> None:
    leader, worker, clock = pair
    for _ in range(30):  # nothing new to tell, for longer than the silence that is allowed
        clock.now += 5
        worker.beat([], NOTHING, 1.0)
        leader.beat([], NOTHING, 1.0)
    clock.now += 46
    with pytest.raises(TransientError, match=r"worker 1 of the load test said nothing for 45 s"):
        leader.beat([], NOTHING, 1.0)
    worker.beat([], NOTHING, 1.0)
    clock.now += 46
    with pytest.raises(TransientError, match=r"worker 0 of the load test said nothing"):
        worker.beat([], NOTHING, 1.0)


def test_when_one_gives_up_the_others_stop_with_its_words(
    pair: tuple[MeetingPlace, MeetingPlace, Clock],
) -> None:
    leader, worker, _ = pair
    worker.fail(StoreUnavailable("no bucket"))
    with pytest.raises(TransientError, match=r"worker 1 .* gave up: StoreUnavailable: no bucket"):
        leader.beat([], NOTHING, 1.0)


def test_an_early_end_reaches_all(pair: tuple[MeetingPlace, MeetingPlace, Clock]) -> None:
    leader, worker, _ = pair
    assert not worker.beat([], NOTHING, 1.0).halted
    leader.beat([], Known(Progress(), halted=True), 1.0)
    assert worker.beat([], NOTHING, 1.0).halted


@pytest.mark.parametrize("ahead", [-3.0, -1.7, -0.5, 0.5, 1.7, 3.0])
def test_clocks_that_differ_by_seconds_are_refused(
    store: MemoryObjects, tmp_path: Path, ahead: float
) -> None:
    clock = Clock()
    leader, worker = member(store, clock, 0), member(store, wrong := Clock(ahead), 1)
    for one in (leader, worker):
        one.ready(tmp_path)
    for one in (worker, leader, worker):
        clock.now += 0.6
        wrong.now += 0.6
        if one is worker and "t/crew/a/go.json" in store.content and abs(ahead) > 1:
            with pytest.raises(TransientError, match=r"the clocks of the nodes differ"):
                one.go()
        else:
            begin = one.go()
    assert abs(ahead) > 1 or begin == pytest.approx(clock.wall() + 2.4)


def test_an_attempt_has_one_leader_and_attempts_do_not_mix(store: MemoryObjects, tmp_path: Path) -> None:
    clock = Clock()
    one, two, other = member(store, clock, 0), member(store, clock, 0), member(store, clock, 0, attempt="b")
    for leader in (one, two, other):
        leader.ready(tmp_path)
    member(store, clock, 1).ready(tmp_path)
    clock.now += 1
    assert one.go() is not None
    with pytest.raises(TransientError, match="begun by another leader"):
        two.go()
    assert other.go() is None  # its own worker is not there


def test_rows_that_were_lost_on_the_way_are_missed(
    pair: tuple[MeetingPlace, MeetingPlace, Clock], store: MemoryObjects, tmp_path: Path
) -> None:
    leader, worker, _ = pair
    worker.beat([row(1, 1.0), row(3, 2.0)], NOTHING, 0.0)
    worker.finish(taken(tmp_path / "1", 0.0, []))
    done = json.loads(store.content["t/crew/a/done-1.json"])
    store.put("t/crew/a/done-1.json", json.dumps({**done, "rows": 3}).encode())
    with pytest.raises(TransientError, match="worker 1 of the load test sent 3 rows, 2 arrived"):
        leader.gather(taken(tmp_path / "0", 0.0, []))


class Absent(MemoryObjects):
    def put(self, key: str, body: bytes) -> str:
        raise StoreUnavailable("gone fishing")


def test_a_bucket_that_is_away_for_a_while_does_not_end_the_test(
    pair: tuple[MeetingPlace, MeetingPlace, Clock], store: MemoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, worker, clock = pair
    with monkeypatch.context() as away:
        away.setattr(worker, "_store", Absent())
        worker.beat([row(1, 1.0)], NOTHING, 0.0)
    worker.beat([row(3, 2.0)], NOTHING, 0.0)
    monkeypatch.setattr(worker, "_store", Absent())
    clock.now += 46
    with pytest.raises(StoreUnavailable):
        worker.beat([], NOTHING, 0.0)
    assert json.loads(store.content["t/crew/a/beat-1.json"])["pieces"] == 1  # both rows, in one


def test_one_pod_meets_nobody_and_its_rows_are_in_s3_before_the_test_ends(
    store: MemoryObjects, tmp_path: Path
) -> None:
    clock = Clock()
    alone = member(store, clock, 0, of=1)
    alone.ready(tmp_path)
    assert alone.go() is not None
    alone.beat([row(0, 1.0)], NOTHING, 0.0)
    assert list(store.content) == ["t/rows/a/0/000001.ndjson.gz"]


def test_terms_that_are_none_are_refused() -> None:
    assert Terms.from_job({}) == Terms()
    with pytest.raises(PermanentError, match="'of' is 'two'"):
        Terms.from_job({"crew": {"of": "two"}})


@pytest.mark.parametrize("arrivals", [None, {"rate": 1.0}])
@pytest.mark.parametrize("processes", [1, 3])
def test_machines_share_all_work_and_nothing_twice(arrivals: dict[str, float] | None, processes: int) -> None:
    workload = Workload(concurrency=8, processes=processes, arrivals=arrivals)
    found = [Share(index, 3).shards(workload) for index in range(3)]
    (total,) = {total for _, total in found}
    assert sorted(shard for own, _ in found for shard in own) == list(range(total))


def test_more_machines_than_users_are_refused() -> None:
    with pytest.raises(Refused, match="no user for machine 2 of 3"):
        Share(2, 3).shards(Workload(concurrency=2))
