"""Figures of a load test, each against a value worked out by hand or by numpy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.bench.arrivals import Arrivals
from trainyard.bench.cost import Hardware, economy
from trainyard.bench.goodput import Limits, goodput
from trainyard.bench.knee import Step, knee, sweep
from trainyard.bench.samples import Sample
from trainyard.bench.summary import QUANTILES, summarize_arm
from trainyard.neuron.instances import instance
from trainyard.neuron.prices import TABLE, Prices
from trainyard.neuron.rent import rent
from trainyard.report.text import render_summary


def made(**fields: Any) -> Sample:
    """100 ms to the first token, then 4 gaps of 10 ms."""
    values: dict[str, Any] = {
        "arm": "canary", "started": 0.0, "ttft": 0.1, "e2e": 0.15, "ok": True, "prompt_tokens": 10,
        "output_tokens": 5, "chunk_times": (0.10, 0.11, 0.12, 0.13, 0.14), "chunk_tokens": (1, 1, 1, 1, 1),
    }  # fmt: skip
    return Sample(**(values | fields))


def broken(kind: str, **fields: Any) -> Sample:
    return made(ok=False, error=kind, output_tokens=None, prompt_tokens=None, **fields)


def test_rates_are_of_what_succeeded_over_the_time_from_first_send_to_last_end() -> None:
    samples = [made(started=0.0), made(started=1.0), broken("cut", started=3.0, e2e=1.0)]
    figures = summarize_arm(samples)
    assert figures["seconds"] == 4.0
    assert figures["requests_per_second"] == 0.5
    assert figures["input_tokens_per_second"] == 5.0
    assert figures["output_tokens_per_second"] == 2.5
    assert figures["lengths"]["output"]["p99"] == 5
    assert "goodput" not in figures


def test_two_runs_whose_clocks_have_nothing_in_common_are_as_long_as_both() -> None:
    first = [made(started=0.0, run=1), made(started=1.85, run=1)]
    second = [made(started=90_000.0, run=2), made(started=90_001.85, run=2)]
    assert summarize_arm(first + second)["seconds"] == pytest.approx(4.0)
    assert summarize_arm(first + second)["requests_per_second"] == 1.0


@given(st.lists(st.floats(1e-4, 100), min_size=1, max_size=300))
def test_every_percentile_is_the_inverted_cdf_of_numpy(seconds: list[float]) -> None:
    figures = summarize_arm([made(ttft=value, e2e=value, intended=-0.5) for value in seconds])
    for name, q in QUANTILES.items():
        exact = float(np.quantile(seconds, q, method="inverted_cdf"))
        assert figures["ttft"][name] == round(exact, 9)
        assert figures["ttft_from_intended"][name] == pytest.approx(exact + 0.5, abs=1e-8)
    assert figures["ttft"]["mean"] == pytest.approx(np.mean(seconds), abs=1e-8)


def test_tpot_is_a_mean_of_requests_and_itl_one_of_tokens() -> None:
    slow = made(chunk_times=(0.1, 0.2), chunk_tokens=(1, 1))
    figures = summarize_arm([made(), slow])
    assert figures["tpot"]["mean"] == pytest.approx((0.01 + 0.1) / 2)
    assert figures["itl"]["mean"] == pytest.approx((4 * 0.01 + 0.1) / 5)


def test_goodput_counts_only_what_met_every_objective() -> None:
    limits = Limits(ttft=0.2, itl=0.02, e2e=1.0)
    samples = [
        made(),
        made(ttft=0.3),  # late first token
        made(chunk_times=(0.1, 0.2, 0.3, 0.4, 0.5)),  # slow tokens
        made(e2e=1.2),  # slow in all
        broken("http_5xx"),
    ]
    assert goodput(samples, limits, 2.0) == {
        "limits": {"ttft": 0.2, "itl": 0.02, "e2e": 1.0},
        "requests": 1, "share": 0.2, "requests_per_second": 0.5, "output_tokens_per_second": 2.5,
    }  # fmt: skip
    assert summarize_arm(samples, limits)["goodput"]["requests"] == 1


def test_a_request_that_was_sent_late_has_waited_since_it_was_due() -> None:
    assert Limits(ttft=0.2).met(made(intended=-0.05)) is True
    assert Limits(ttft=0.2).met(made(intended=-0.15)) is False
    assert Limits(e2e=0.2).met(made(intended=-0.1)) is False


def test_an_answer_of_one_token_cannot_be_slow_between_tokens() -> None:
    assert Limits(itl=0.001).met(made(chunk_times=(0.1,), chunk_tokens=(1,))) is True


def test_what_was_cut_off_counts_only_if_it_was_too_late_already() -> None:
    limits = Limits(ttft=1.0, e2e=5.0)
    assert limits.met(broken("censored", ttft=None, e2e=0.5)) is None
    assert limits.met(broken("censored", ttft=None, e2e=1.5)) is False
    assert limits.met(broken("censored", ttft=0.5, e2e=4.0)) is None
    assert limits.met(broken("censored", ttft=0.5, e2e=6.0)) is False
    found = goodput([made(), broken("censored", ttft=None, e2e=0.5)], limits, 1.0)
    assert (found["requests"], found["share"]) == (1, 1.0)
    assert goodput([broken("censored", ttft=None, e2e=0.5)], limits, 1.0)["share"] is None


def test_a_million_tokens_cost_the_hour_over_the_tokens_of_an_hour() -> None:
    figures = {"output_tokens_per_second": 1000.0, "input_tokens_per_second": 3000.0}
    found = economy(figures, Hardware(cores=8, dollars_per_hour=3.6, price="said so"))
    assert found["output_tokens_per_second_per_core"] == 125.0
    assert found["dollars_per_million_output_tokens"] == 1.0  # 3.6 dollars buy 3.6 million
    assert found["dollars_per_million_tokens"] == 0.25
    assert found["price"] == "said so"


def test_a_cost_that_nobody_can_know_is_none() -> None:
    assert economy({}, Hardware(cores=2, dollars_per_hour=1.0))["dollars_per_million_output_tokens"] is None
    free = economy({"output_tokens_per_second": 5.0}, Hardware(cores=2))
    assert free["dollars_per_million_tokens"] is None
    assert free["output_tokens_per_second_per_core"] == 2.5


def test_servers_pay_for_their_chips_and_the_price_says_where_it_is_from() -> None:
    kind = instance("trn2.48xlarge")  # 16 chips, 4 logical cores each
    found = rent(kind, tensor_parallel=8, replicas=2, lnc=2, prices=TABLE)
    assert (found.cores, found.chips) == (16, 4)
    assert found.dollars_per_hour == pytest.approx(35.7608 / 4)
    assert "4 of 16 chips of a trn2.48xlarge" in found.words
    assert TABLE.date in found.words
    own = rent(kind, tensor_parallel=8, replicas=2, lnc=2, prices=TABLE, dollars=16.0)
    assert (own.dollars_per_hour, "as given" in own.words) == (4.0, True)
    unknown = rent(kind, tensor_parallel=8, replicas=9, lnc=2, prices=Prices("2026-01-01", "mine", {}))
    assert unknown.dollars_per_hour is None
    assert unknown.words == "18 chips of trn2.48xlarge, 16 each; no price in the table of 2026-01-01"


def climbed(rates: list[float], service: float) -> tuple[list[Sample], Arrivals]:
    """A server that does one request after the other, `service` seconds each."""
    rows = [{"seconds": 10, "rate": rate} for rate in rates]
    schedule = Arrivals.from_dict({"process": "poisson", "stages": rows}, 1.0)
    samples, free = [], 0.0
    for due in schedule.schedule(3):
        free = max(free, due) + service
        samples.append(made(started=due, ttft=free - due, e2e=free - due))
    return samples, schedule


def test_a_sweep_says_its_steps_and_the_knee() -> None:
    samples, schedule = climbed([4.0, 10.0, 40.0], 0.05)
    found = sweep(samples, ["canary", "baseline"], schedule, seed=3, limit=0.5)
    canary = found["canary"]
    assert [step["good"] for step in canary["steps"]] == [True, True, False]
    assert canary["knee"] == canary["steps"][1]
    assert canary["steps"][2]["tokens_per_second"] == pytest.approx(100, rel=0.1)  # 20 answers of 5 tokens
    assert found["baseline"] == {"steps": [], "knee": None, "limit": 0.5}
    # Each request belongs to the stage that the schedule had it in.
    due = [
        sum(number * 10 <= moment < number * 10 + 10 for moment in schedule.schedule(3))
        for number in range(3)
    ]
    assert [step["offered"] * 10 for step in canary["steps"]] == pytest.approx(due)
    json.dumps(found, allow_nan=False)


def test_a_sweep_that_was_ended_early_has_the_rates_that_were_asked_in_full() -> None:
    samples, schedule = climbed([4.0, 10.0, 15.0], 0.05)
    whole = sweep(samples, ["canary"], schedule, seed=3, limit=0.5)["canary"]
    assert whole["knee"] == whole["steps"][2]
    # Two seconds into the last rate: 30 requests in ten seconds would be a rate of 3.
    cut = [sample for sample in samples if sample.started < 22]
    found = sweep(cut, ["canary"], schedule, seed=3, limit=0.5)["canary"]
    assert (found["steps"], found["knee"]) == (whole["steps"][:2], whole["steps"][1])
    # Later turns of conversations are no arrivals.
    turns = [made(started=sample.started, ttft=0.05, e2e=0.05, turn=1) for sample in cut]
    assert len(sweep(cut + turns, ["canary"], schedule, seed=3, limit=0.5)["canary"]["steps"]) == 2
    at_once = sweep(samples[:10], ["canary"], schedule, seed=3)
    assert at_once == {"canary": {"steps": [], "knee": None, "limit": None}}
    assert any("knee unknown" in line for line in render_summary({"arms": {}, "sweep": at_once}))


def test_a_rate_is_not_kept_by_failing_fast_or_by_ending_later_and_later() -> None:
    """First tokens are quick in both: what they show is no reason to call a rate good."""
    rows = [{"seconds": 10, "rate": 4.0}, {"seconds": 10, "rate": 10.0}]
    schedule = Arrivals.from_dict({"process": "constant", "stages": rows}, 1.0)
    moments = schedule.schedule(3)
    good = [made(started=due) for due in moments]
    failing = [
        broken("http_5xx", started=due) if due >= 10 and number % 10 == 0 else one
        for number, (due, one) in enumerate(zip(moments, good, strict=True))
    ]
    # Answers of the second stage take longer, one after the other.
    late = [made(started=due, e2e=0.15 + 0.5 * max(0.0, due - 10)) for due in moments]
    for samples, kept in ((good, True), (failing, False), (late, False)):
        steps = sweep(samples, ["canary"], schedule, seed=3, limit=0.5)["canary"]["steps"]
        assert [step["good"] for step in steps] == [True, kept]
        assert steps[1]["ttft_p95"] == pytest.approx(0.1)


def test_a_load_of_one_rate_is_no_sweep() -> None:
    samples, schedule = climbed([4.0], 0.05)
    assert sweep(samples, ["canary"], schedule, seed=3) == {}
    assert sweep(samples, ["canary"], None, seed=3) == {}


@given(st.lists(st.booleans(), max_size=12))
def test_the_knee_is_good_and_so_is_every_rate_below_it(good: list[bool]) -> None:
    found = [Step(float(number), float(number), 0.1, 0.0, good=one) for number, one in enumerate(good)]
    top = knee(found)
    below = found.index(top) + 1 if top is not None else 0
    assert all(step.good for step in found[:below])
    assert below == len(found) or not found[below].good


_TIMES = st.floats(1e-3, 10)


@given(
    st.lists(st.tuples(_TIMES, _TIMES, st.sampled_from(["", "cut", "censored"])), max_size=30), _TIMES, _TIMES
)
def test_a_stricter_objective_never_makes_goodput_better(
    rows: list[tuple[float, float, str]], limit: float, stricter: float
) -> None:
    samples = [
        made(ttft=first, e2e=first + rest) if not kind else broken(kind, ttft=first, e2e=first + rest)
        for first, rest, kind in rows
    ]
    loose = goodput(samples, Limits(ttft=max(limit, stricter)), 1.0)
    tight = goodput(samples, Limits(ttft=min(limit, stricter), e2e=stricter), 1.0)
    assert tight["requests"] <= loose["requests"] <= sum(sample.ok for sample in samples)
    for found in (loose, tight):
        assert found["share"] is None or 0 <= found["share"] <= 1
