"""The watch stops a slow or failing canary early, and blames it for nothing that it cannot know."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.rollout.simulated import simulate, summary_of
from trainyard.rollout import watch
from trainyard.rollout.judge import judge
from trainyard.rollout.verdict import Objectives

OBJECTIVES = Objectives(ttft_p95_seconds=1.0, itl_p95_seconds=0.1)


def test_a_slow_canary_raises_the_alarm_before_there_are_enough_samples_to_judge() -> None:
    summary, samples = simulate(1, pairs=19, slow=2.5, tokens=8)
    seen = watch.observe(samples, OBJECTIVES)
    assert seen is not None
    assert seen.alarm is not None
    assert seen.alarm < 20
    assert "itl (body)" in seen.blamed
    verdict = judge(summary, samples, OBJECTIVES, baseline_expected=True)
    assert verdict.outcome == "fail"
    told = "".join(verdict.reasons)
    assert f"alarm after {seen.alarm} pairs: " in told
    # What, by how much, and how much was allowed; a slow body explains its tail.
    assert re.search(r"itl p50 \d+ ms is 2\.\d\d x the baseline's [\d.]+ ms; allowed 1\.\d+ x", told)
    assert len({text.split()[0] for text in seen.seen}) == len(seen.seen)


def test_equal_servers_and_servers_at_the_margin_raise_no_alarm() -> None:
    for slow in (1.0, 1.25):
        found = [
            watch.observe(simulate(seed, slow=slow, pairs=60, tokens=8)[1], OBJECTIVES) for seed in range(40)
        ]
        assert sum(seen is None or seen.alarm is not None for seen in found) <= 2


def test_an_alarm_stays_whatever_comes_later_and_whenever_it_is_looked_for() -> None:
    samples = simulate(3, pairs=60, slow=2.5, tokens=8)[1]
    alarms = set()
    for count in range(2, len(samples) + 1, 2):
        seen = watch.observe(samples[:count], OBJECTIVES)
        assert seen is not None
        if seen.alarm:
            alarms.add(seen.alarm)
    assert len(alarms) == 1


def test_a_canary_that_fails_raises_the_alarm_and_one_that_fails_like_its_baseline_does_not() -> None:
    alone = watch.observe(simulate(4, errors=0.4, tokens=4)[1], OBJECTIVES)
    assert alone is not None
    assert alone.alarm is not None
    assert alone.blamed == ("errors",)
    seen = simulate(4, errors=0.4, tokens=4)[1][: 2 * alone.alarm]
    failed = sum(not sample.ok for sample in seen)
    assert f"{failed} of {alone.alarm} requests failed" in alone.seen[0]
    assert "the baseline's 0 (0.0%); allowed 1.0%" in alone.seen[0]
    both = watch.observe(simulate(4, errors=0.4, baseline_errors=0.4, tokens=4)[1], OBJECTIVES)
    assert both is not None
    assert both.alarm is None


def test_no_alarm_comes_before_ten_pairs_or_before_the_evidence_that_was_agreed() -> None:
    samples = simulate(1, pairs=40, slow=50.0, tokens=4)[1]
    for pairs in range(1, 14):
        seen = watch.observe(samples[: 2 * pairs], OBJECTIVES)
        assert seen is not None
        assert (seen.pairs, seen.alarm) == (pairs, 10 if pairs >= 10 else None)


@pytest.mark.parametrize(("confidence", "needed"), [(0.95, 20.0), (0.99, 100.0)])
def test_the_alarm_comes_with_the_pair_that_makes_the_evidence_what_was_agreed(
    confidence: float, needed: float
) -> None:
    objectives = replace(OBJECTIVES, confidence=confidence)
    samples = simulate(1, pairs=60, slow=1.5, sigma=0.5, tokens=8)[1]
    seen = watch.observe(samples, objectives)
    assert seen is not None
    assert seen.alarm is not None
    assert seen.alarm > 10
    before = watch.observe(samples[: 2 * seen.alarm - 2], objectives)
    assert before is not None
    assert seen.needed == pytest.approx(needed)
    assert before.worth < needed <= seen.worth


def test_what_was_cut_off_by_the_end_of_the_run_is_no_failure() -> None:
    samples = [
        replace(sample, ok=False, error="censored") if sample.arm == "canary" and sample.pair else sample
        for sample in simulate(4, tokens=4)[1]
    ]
    seen = watch.observe(samples, OBJECTIVES)
    assert seen is not None
    assert (seen.pairs, seen.alarm) == (1, None)


def test_all_bets_together_stake_what_was_agreed_and_no_more() -> None:
    nothing = np.full(30, math.nan)
    for metrics in ((), ("ttft",), ("ttft", "itl", "e2e")):
        paired = watch.Paired(dict.fromkeys(metrics, (nothing, nothing)), (nothing, None))
        worth, _ = watch.accumulate(paired, 0.01)
        assert np.exp(worth) == pytest.approx(1.0)


def test_a_metric_with_a_gap_in_it_is_no_evidence() -> None:
    samples = simulate(5, slow=2.5, tokens=4)[1]
    spoilt = [replace(samples[0], ttft=math.nan, e2e=math.nan, chunk_times=(math.nan,) * 4), *samples[1:]]
    seen = watch.observe(spoilt, OBJECTIVES)
    assert seen is not None
    assert seen.alarm is None
    assert judge(summary_of(spoilt), spoilt, OBJECTIVES, baseline_expected=True).outcome != "pass"


def test_what_cannot_be_paired_is_not_watched() -> None:
    assert watch.observe([], OBJECTIVES) is None
    single = [replace(sample, pair=None) for sample in simulate(6, pairs=4, tokens=2)[1]]
    assert watch.observe(single, OBJECTIVES) is None
    assert watch.check(None) == []


def test_samples_that_come_bit_by_bit_and_in_any_order_say_what_all_at_once_say() -> None:
    samples = simulate(6, pairs=40, slow=1.6, tokens=6)[1]
    samples[7] = replace(samples[7], ok=False, error="censored")
    watcher = watch.Watcher(OBJECTIVES, paired=True)
    assert watcher.look() is None
    for start in range(0, len(samples), 9):
        piece = samples[start : start + 9]
        watcher.add(reversed(piece))
        assert watcher.look() == watch.observe(samples[: start + 9], OBJECTIVES)
    alone = [sample for sample in samples if sample.arm == "canary"]
    single = watch.Watcher(OBJECTIVES, paired=False)
    single.add(alone)
    assert single.look() == watch.observe(alone, OBJECTIVES)


def test_a_test_that_was_stopped_fails_with_as_many_samples_as_it_has() -> None:
    samples = simulate(1, pairs=14, slow=2.5, tokens=8)[1]
    stopped = {"at": 9.5, "pairs": 14, "reasons": ["itl (body)"]}
    many = replace(OBJECTIVES, min_samples=200)
    verdict = judge(summary_of(samples) | {"stopped": stopped}, samples, many, baseline_expected=True)
    assert verdict.outcome == "fail"
    assert "the load test was stopped after 14 pairs" in verdict.reasons[0]


def test_a_test_that_was_stopped_without_an_alarm_in_its_data_is_too_short_to_pass_or_to_fail() -> None:
    stopped = {"at": 9.5, "pairs": 40, "reasons": ["itl (body)"]}
    for knobs in ({}, {"slow": 1.3}):  # by wider margins than those it was stopped by
        samples = simulate(2, pairs=40, tokens=8, **knobs)[1]
        wide = replace(OBJECTIVES, max_ratio=dict.fromkeys(OBJECTIVES.max_ratio, 3.0), ttft_p95_seconds=0.001)
        verdict = judge(summary_of(samples) | {"stopped": stopped}, samples, wide, baseline_expected=True)
        assert verdict.outcome == "inconclusive"
        assert "stopped after 10 s by an alarm (itl (body)) that its data do not raise now" in verdict.summary
