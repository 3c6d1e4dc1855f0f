"""The summary of a test with more rows than memory should hold."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from pathlib import Path

import pytest

from tests.support.memory_objects import MemoryObjects
from trainyard.bench.goodput import Limits
from trainyard.bench.load import Described, Taken
from trainyard.bench.progress import Progress
from trainyard.bench.rows import Rows
from trainyard.bench.samples import Sample, pack
from trainyard.bench.summary import QUANTILES
from trainyard.bench.workload import Workload
from trainyard.jobs.loadtest import summarized
from trainyard.jobs.loadwatch import _watch_samples
from trainyard.rollout.verdict import Objectives

ABOUT = Described("m", {"canary": ["u"], "baseline": ["u"]}, Workload(), 1, Limits(ttft=0.1, itl=0.02), 2)


def some(number: int, chance: random.Random) -> Sample:
    at, times = 0.05 * chance.lognormvariate(0, 0.3), []
    for _ in range(12):
        times.append(round(at, 7))
        at += 0.01 * chance.lognormvariate(0, 1)
    cut = number % 50 == 0
    return Sample(
        arm="baseline" if number % 2 else "canary",
        pair=number // 2,
        started=100 + number / 50,
        ttft=times[0],
        e2e=round(at, 7),
        prompt_tokens=64,
        output_tokens=12,
        chunk_times=tuple(times),
        chunk_tokens=(1,) * 12,
        ok=not cut,
        error="cut" if cut else "",
    )


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    chance, path, seen = random.Random(1), tmp_path / "rows", Progress()
    lines = [json.dumps(some(number, chance).to_row()).encode() for number in range(1000)]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    seen.count(lines)
    return Taken(tmp_path, (path,), ({"loop_lag_p99_seconds": 0.0, "cpu_share": 0.1},), 100.0, seen)


def test_beyond_the_cap_only_the_time_between_tokens_is_approximate_and_it_says_so(taken: Taken) -> None:
    rows = Rows(taken.files)
    exact, large = summarized(rows, ABOUT, taken), summarized(rows, ABOUT, taken, most=999)
    assert "approximate" not in exact
    assert large.pop("approximate") == {"itl": 0.0005}
    for arm in ("canary", "baseline"):
        true, found = exact["arms"][arm].pop("itl"), large["arms"][arm].pop("itl")
        assert found.keys() == true.keys()
        assert all(math.isclose(found[name], true[name], rel_tol=0.001) for name in (*QUANTILES, "mean"))
        assert (found["count"], found["min"], found["max"]) == (true["count"], true["min"], true["max"])
    assert large == exact


def test_an_arm_without_an_answer_has_no_percentiles_from_sketches_either(taken: Taken) -> None:
    about = Described("m", {"canary": ["u"], "baseline": ["u"], "other": ["u"]}, Workload(), 1)
    for most in (10, 10_000):
        assert summarized(Rows(taken.files), about, taken, most)["arms"]["other"]["itl"] == {"count": 0}


def test_a_watch_reads_the_parts_before_it_without_holding_them() -> None:
    chance, store = random.Random(1), MemoryObjects()
    samples = [some(number, chance) for number in range(4000)]
    store.put("m/0/samples.ndjson.gz", pack(samples))
    everything = sum(len(sample.to_line()) for sample in samples)
    objectives = Objectives(ttft_p95_seconds=1, itl_p95_seconds=0.1)
    watch = {"objectives": objectives.to_dict(), "earlier": []}
    job = {"arms": {"canary": ["x"], "baseline": ["y"]}, "watch": watch}
    del samples
    _watch_samples(job, store)  # what it imports is not counted
    watch["earlier"] = ["m/0/"]
    tracemalloc.start()
    try:
        _watch_samples(job, store)
        assert tracemalloc.get_traced_memory()[1] < everything / 2
    finally:
        tracemalloc.stop()
