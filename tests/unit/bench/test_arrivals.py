"""Schedules of open loops."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.bench.arrivals import PROCESSES, Arrivals, Stage
from trainyard.bench.health import TICK_SECONDS, Lag, judge_generator, with_missed, worst
from trainyard.bench.samples import Sample
from trainyard.bench.summary import summarize
from trainyard.bench.workload import Workload
from trainyard.errors import Refused

STAGE = st.builds(Stage, st.floats(0.1, 20), st.floats(0, 50), st.floats(0.1, 50))


@given(st.sampled_from(PROCESSES), st.lists(STAGE, min_size=1, max_size=4), st.integers(0, 9))
def test_moments_ascend_inside_the_stages_and_one_seed_gives_one_schedule(
    process: str, stages: list[Stage], seed: int
) -> None:
    arrivals = Arrivals(process, tuple(stages), shape=0.5)
    moments = arrivals.schedule(seed)
    assert moments == sorted(moments)
    assert all(0 <= moment <= arrivals.seconds + 1e-9 for moment in moments)
    assert moments == arrivals.schedule(seed)


@given(st.lists(STAGE, min_size=1, max_size=4))
def test_a_constant_process_sends_as_many_as_the_rates_say_by_every_moment(stages: list[Stage]) -> None:
    moments = Arrivals("constant", tuple(stages)).schedule(1)
    start, before = 0.0, 0.0
    for stage in stages:
        start, before = start + stage.seconds, before + stage.expected
        assert sum(moment < start - 1e-6 for moment in moments) == pytest.approx(before, abs=1.01)


@pytest.mark.parametrize(
    ("process", "shape", "variation"), [("constant", 1, 0), ("poisson", 1, 1), ("gamma", 0.25, 2)]
)
def test_gaps_vary_as_the_process_says(process: str, shape: float, variation: float) -> None:
    moments = Arrivals(process, (Stage(400, 50, 50),), shape=shape).schedule(1)
    gaps = [after - before for before, after in pairwise(moments)]
    assert len(moments) == pytest.approx(20_000, rel=0.05)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(variation, abs=0.08)


def test_a_ramp_sends_more_and_more() -> None:
    moments = Arrivals.from_dict({"process": "constant", "rate": 0, "to": 20}, 10).schedule(1)
    assert len(moments) == 100
    assert sum(moment < 5 for moment in moments) == 25


def test_a_sweep_climbs_stairs_and_a_trace_is_sent_as_it_was() -> None:
    moments = Arrivals("constant", tuple(Stage(10, rate, rate) for rate in (1, 2, 4))).schedule(1)
    counts = [sum(low <= moment < low + 10 for moment in moments) for low in (0, 10, 20)]
    assert counts == [10, 20, 40]
    assert Arrivals.from_dict({"offsets": [0, 0.5, 0.5, 2]}, 10).schedule(1) == [0, 0.5, 0.5, 2]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "how many requests"),
        ({"rate": 1, "offsets": [1]}, "how many requests"),
        ({"rate": -1}, "no stage"),
        ({"rate": 5, "process": "uniform"}, "process"),
        ({"rate": 5, "burst": 1}, "burst"),
        ({"rate": 5, "shape": 0, "process": "gamma"}, "shape"),
        ({"rate": 5, "shape": 1e-6, "process": "gamma"}, "from 0.01 to 100"),
        ({"stages": [{"rate": 5}]}, "no stage"),
        ({"offsets": [2, 1]}, "ascending"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=rf"workload\.arrivals.*{words}"):
        Workload.from_dict({"arrivals": document})


def sample(**fields: Any) -> Sample:
    return Sample(**({"arm": "canary", "started": 1.0, "e2e": 0.5, "ttft": 0.1, "ok": True} | fields))


def test_latencies_count_from_when_the_schedule_wanted_them_sent() -> None:
    figures = summarize([sample(intended=-0.3)], ["canary"])["canary"]
    assert figures["ttft"]["p50"] == 0.1
    assert figures["ttft_from_intended"]["p50"] == pytest.approx(0.4)
    assert figures["e2e_from_intended"]["p50"] == pytest.approx(0.8)


def reasons(reading: dict[str, float], samples: list[Sample]) -> list[str]:
    return list(judge_generator(reading, samples, max_lag=0.1, max_cpu_share=0.9)["reasons"])


def test_a_schedule_that_was_not_kept_makes_the_run_invalid() -> None:
    reading = {"loop_lag_p99_seconds": 0.0, "cpu_share": 0.1, "scheduled": 2}
    assert reasons(reading, [sample(), sample()]) == []
    assert "the schedule has 2" in reasons(reading, [sample()])[0]
    assert "3 requests were sent, the schedule has 2" in reasons(reading, [sample()] * 3)
    assert "sent 200 ms late" in reasons(reading, [sample(intended=-0.2)] * 2)[0]


def test_one_long_stall_counts_as_all_the_ticks_that_it_swallowed() -> None:
    steady = [0.0] * 950
    assert len(with_missed([*steady, 0.5])) == len(steady) + 1 + round(0.5 / TICK_SECONDS)
    assert sorted(with_missed([*steady, 0.5]))[-10] > 0.3
    lag = Lag(lambda seconds: None, late=[*steady, 0.5])
    assert lag.reading()["loop_lag_p99_seconds"] > 0.3  # one tick of a thousand would not show


def test_of_several_generators_the_worst_counts_and_a_silent_one_spoils_all() -> None:
    one = {"loop_lag_p99_seconds": 0.01, "cpu_share": 0.5, "scheduled": 10}
    other = {"loop_lag_p99_seconds": 0.2, "cpu_share": 0.1, "scheduled": 9}
    assert worst([one, other]) == {"loop_lag_p99_seconds": 0.2, "cpu_share": 0.5, "scheduled": 19}
    assert worst([one, None]) is None
