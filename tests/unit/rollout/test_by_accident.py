"""No verdict is green, and no model is blamed, by an accident of the data."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.unit.rollout.simulated import simulate, summary_of
from tests.unit.rollout.test_live import OBJECTIVES as LIVE
from tests.unit.rollout.test_live import judged, traffic
from trainyard.bench.samples import Sample
from trainyard.errors import Refused
from trainyard.rollout import watch
from trainyard.rollout.chance import binomial_at_least, fisher_more
from trainyard.rollout.judge import judge
from trainyard.rollout.live import Live, live_of
from trainyard.rollout.verdict import Objectives, Verdict

OBJECTIVES = Objectives(ttft_p95_seconds=1.0, itl_p95_seconds=0.1)


def verdict_on(samples: list[Sample], objectives: Objectives = OBJECTIVES, **knobs: Any) -> Verdict:
    return judge(summary_of(samples), samples, objectives, baseline_expected=True, **knobs)


@pytest.mark.parametrize("summary", [None, {"synthetic": False}])
@pytest.mark.parametrize("rows", [[], traffic(1)])
def test_servers_that_answered_a_load_test_whose_samples_are_gone_do_not_pass(
    summary: dict[str, Any] | None, rows: list[dict[str, Any]]
) -> None:
    live = Live(live_of(rows).canary, live_of(rows).baseline, synthetic=True)
    verdict = judge(summary, None, LIVE, baseline_expected=True, live=live)
    assert verdict.outcome == "inconclusive"
    assert "whose samples are not there" in verdict.summary


def test_rows_that_came_many_times_blame_nobody() -> None:
    for seed in range(8):
        samples = simulate(seed, pairs=12)[1]
        verdict = judge(summary_of(samples), samples * 30, OBJECTIVES, baseline_expected=True)
        assert verdict.outcome == "inconclusive"
        assert "the samples say 360" in verdict.summary


@pytest.mark.parametrize("metric", ["ttft", "e2e"])
@pytest.mark.parametrize("arms", [("canary",), ("baseline",), ("canary", "baseline")])
def test_an_answer_that_took_no_time_was_not_measured(metric: str, arms: tuple[str, ...]) -> None:
    samples = [
        (replace(sample, ttft=0.0) if metric == "ttft" else replace(sample, e2e=0.0))
        if sample.arm in arms
        else sample
        for sample in simulate(1)[1]
    ]
    verdict = verdict_on(samples)
    assert verdict.outcome == "inconclusive"
    assert f"{metric} is missing or no number in 40 of 40 answers of the {arms[0]}" in verdict.reasons


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_ratio": {"ttft": 0.8}}, "max_ratio.ttft = 0.8"),
        ({"max_ratio": {"ttft": math.inf}}, "max_ratio.ttft = inf"),
        ({"max_ratio": {"ttfb": 1.2}}, "max_ratio.ttfb = 1.2"),
        ({"floor_seconds": {"itl": math.inf}}, "floor_seconds.itl = inf"),
        ({"floor_seconds": {"itl": math.nan}}, "floor_seconds.itl = nan"),
        ({"floor_seconds": {"itl": -0.001}}, "floor_seconds.itl = -0.001"),
        ({"floor_seconds": {"tpot": 0.001}}, "floor_seconds.tpot = 0.001"),
    ],
)
def test_a_margin_that_could_never_be_missed_or_kept_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused, match=named):
        replace(OBJECTIVES, **change)


@pytest.mark.parametrize("slow", [1.0, 20.0])
@pytest.mark.parametrize("baseline", [True, False])
def test_a_metric_that_one_answer_alone_has_decides_nothing(slow: float, baseline: bool) -> None:
    samples = [
        replace(sample, chunk_times=sample.chunk_times[:1], chunk_tokens=(1,))
        if sample.pair
        else replace(sample, chunk_times=tuple(stamp * slow for stamp in sample.chunk_times))
        for sample in simulate(1, baseline=baseline)[1]
    ]
    verdict = judge(summary_of(samples), samples, OBJECTIVES, baseline_expected=baseline)
    assert verdict.outcome == "inconclusive"
    assert "itl was measured in 1 of 40 answers of the canary: too few to judge it" in verdict.reasons


@pytest.mark.parametrize("pairs", [1, 5, 12, 19])
def test_a_handful_of_pairs_at_the_margin_neither_passes_nor_fails(pairs: int) -> None:
    eager = replace(OBJECTIVES, min_samples=1, floor_seconds={})
    found = Counter(
        verdict_on(simulate(seed, pairs=pairs, slow=1.25, sigma=0.4, tokens=3)[1], eager).outcome
        for seed in range(40)
    )
    assert found["inconclusive"] >= 38, found


@pytest.mark.parametrize("pairs", [20, 40, 58])
def test_a_p95_of_fewer_than_fifty_nine_blames_nobody(pairs: int) -> None:
    for seed in range(20):
        samples = simulate(seed, pairs=pairs, slow=1.25, sigma=0.5, tokens=3)[1]
        for check in verdict_on(samples, replace(OBJECTIVES, floor_seconds={})).checks:
            assert (check.kind, check.statistic, check.outcome) != ("baseline", "p95", "fail")


def test_tests_of_a_hundred_thousand_requests_are_exact_and_do_not_take_minutes() -> None:
    for few in ((3, 20, 1, 30), (0, 5, 0, 5), (5, 5, 0, 5), (7, 40, 7, 40)):
        count, trials, other, others = few
        ways = [
            math.comb(trials, k) * math.comb(others, count + other - k)
            for k in range(count, min(trials, count + other) + 1)
        ]
        exact = sum(ways) / math.comb(trials + others, count + other)
        assert fisher_more(*few) == pytest.approx(exact, rel=1e-10)
    assert fisher_more(25_000, 50_000, 25_000, 50_000) == pytest.approx(0.5, abs=0.01)
    assert fisher_more(25_500, 50_000, 25_000, 50_000) < 0.001
    assert binomial_at_least(10**7, 10**9, 0.01) == pytest.approx(0.5, abs=0.001)


def test_a_tiny_alpha_can_still_be_met() -> None:
    strict = replace(OBJECTIVES, confidence=0.99, looks=3)
    checks = verdict_on(simulate(1, slow=2.5, pairs=100, tokens=3)[1], strict).checks
    outcomes = {(check.metric, check.statistic): check.outcome for check in checks}
    assert outcomes["ttft", "p50"] == outcomes["ttft", "p95"] == "fail"


def spoilt(rows: list[dict[str, Any]], arm: str, change: Any) -> list[dict[str, Any]]:
    return [row | {"text": change(row["text"])} if row["arm"] == arm else row for row in rows]


def test_a_baseline_without_a_failure_does_not_fail_alike() -> None:
    rows = traffic(5, errors=0.1, share=0.95)
    verdict = judged(rows, replace(LIVE, max_ratio={}))
    assert verdict.outcome == "fail"
    assert "requests failed" in verdict.summary
    assert "the baseline's 0 of " in verdict.summary


@pytest.mark.parametrize("figure", ["0", "0.5", "-1", "1e9", "+Inf", "NaN"])
@pytest.mark.parametrize("arm", ["canary", "baseline"])
def test_a_sum_that_does_not_fit_its_buckets_never_passes_and_never_fails(figure: str, arm: str) -> None:
    """From the middle on: a sum that stands still would make every later answer take no time."""

    def stuck(text: str) -> str:
        lines = text.splitlines()
        return "\n".join(f"{line.rsplit(' ', 1)[0]} {figure}" if "_sum" in line else line for line in lines)

    rows = traffic(1)
    verdict = judged([*rows[:20], *spoilt(rows[20:], arm, stuck)])
    assert verdict.outcome == "inconclusive"


@pytest.mark.parametrize("word", ["+Inf", "-Inf", "NaN", "1e400", "1e300"])
@pytest.mark.parametrize("reason", ["stop", "error"])
def test_a_count_that_is_no_number_never_passes_and_never_fails(word: str, reason: str) -> None:
    def endless(text: str) -> str:
        mark = f'finished_reason="{reason}"'
        lines = text.splitlines()
        return "\n".join(f"{line.rsplit(' ', 1)[0]} {word}" if mark in line else line for line in lines)

    assert judged(spoilt(traffic(1), "canary", endless)).outcome == "inconclusive"


def test_an_engine_without_a_sum_is_not_left_out_of_the_mean() -> None:
    def two_engines(text: str) -> str:
        again = text.replace('engine="0"', 'engine="1"').split("vllm:request_success")[0]
        lines = text.splitlines()
        silent = [f"{line.rsplit(' ', 1)[0]} NaN" if "_sum" in line else line for line in lines]
        return "\n".join([*silent, again])

    verdict = judged(spoilt(traffic(1), "canary", two_engines))
    assert verdict.outcome == "inconclusive"
    assert "servers: ttft is missing on the canary" in verdict.reasons


def test_an_alarm_names_what_it_saw_and_not_what_was_allowed_all_the_same() -> None:
    random = np.random.default_rng(5)
    samples = []
    for pair in range(400):
        for place, arm in enumerate(("canary", "baseline")):
            spike = 5 if arm == "canary" and random.random() < 0.06 else 1
            ttft = 0.06 * spike * math.exp(random.normal(0, 0.3))
            samples.append(
                Sample(arm=arm, pair=pair, started=pair + place / 2, ttft=ttft, e2e=1.0, ok=True, status=200)
            )
    seen = watch.observe(samples, replace(OBJECTIVES, max_ratio={"ttft": 1.25}))
    assert seen is not None
    assert seen.blamed == ("ttft (tail)",)
    assert "the slow one of a pair was the canary's" in seen.seen[0]
    # A canary that was slow until the alarm, and well afterwards.
    early = [
        replace(sample, ttft=0.2 if sample.arm == "canary" and sample.pair in range(12) else 0.06)
        for sample in samples
    ]
    seen = watch.observe(early, OBJECTIVES)
    assert seen is not None
    assert "ttft p50 200 ms is 3.33 x the baseline's 60 ms; allowed 1.25 x" in seen.seen


def test_a_baseline_of_zeros_is_no_factor_of_a_thousand_million() -> None:
    samples = [
        replace(sample, chunk_times=(sample.ttft or 0,) * 32) if sample.arm == "baseline" else sample
        for sample in simulate(1)[1]
    ]
    told = " ".join(verdict_on(samples).reasons)
    assert "itl p50 11 ms is more than the baseline's 0.0 ms" in told
    assert "00000" not in told
