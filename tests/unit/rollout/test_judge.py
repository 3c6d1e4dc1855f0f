"""The judge fails on evidence, passes on data, and takes nothing that is missing for good."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.rollout.simulated import simulate, summary_of
from trainyard.bench.samples import Sample
from trainyard.errors import Refused
from trainyard.rollout.judge import judge
from trainyard.rollout.verdict import Objectives, Verdict, say_time

OBJECTIVES = Objectives(ttft_p95_seconds=1.0, itl_p95_seconds=0.1)


def outcomes(runs: int, **knobs: Any) -> Counter[str]:
    return Counter(
        judge(*simulate(seed, **knobs), OBJECTIVES, baseline_expected=True, seed=seed).outcome
        for seed in range(runs)
    )


def test_two_equal_servers_practically_never_fail_and_mostly_pass() -> None:
    found = outcomes(40, tokens=16)
    assert found["fail"] == 0
    assert found["pass"] >= 36


def test_a_server_that_is_two_and_a_half_times_slower_is_always_caught() -> None:
    assert outcomes(20, slow=2.5, tokens=16) == {"fail": 20}
    assert outcomes(20, slow=2.5, tokens=8, pairs=20, sigma=0.3) == {"fail": 20}


def test_a_server_at_the_margin_never_passes_by_luck_more_often_than_agreed() -> None:
    assert outcomes(40, slow=1.3, tokens=16)["pass"] <= 2


def test_a_verdict_says_by_how_much() -> None:
    verdict = judge(*simulate(1, slow=2.5), OBJECTIVES, baseline_expected=True)
    check = next(check for check in verdict.checks if (check.metric, check.statistic) == ("itl", "p50"))
    assert check.outcome == "fail"
    assert check.arm_value is not None
    assert check.baseline_value is not None
    assert f"is {check.arm_value / check.baseline_value:.2f} x the baseline's" in check.text
    assert check.text.endswith("allowed 1.25 x")
    assert verdict.summary.startswith("fail: ")


def test_without_a_baseline_the_objectives_decide_alone() -> None:
    data = simulate(1, baseline=False)
    assert judge(*data, OBJECTIVES, baseline_expected=False).outcome == "pass"
    strict = replace(OBJECTIVES, ttft_p95_seconds=0.01)
    verdict = judge(*data, strict, baseline_expected=False)
    assert verdict.outcome == "fail"
    assert "over its limit of 10 ms" in verdict.summary


def test_a_tail_that_may_or_may_not_be_over_its_limit_is_inconclusive() -> None:
    summary, samples = simulate(1, baseline=False)
    ordered = sorted(sample.ttft or 0 for sample in samples)
    limit = replace(OBJECTIVES, ttft_p95_seconds=(ordered[-4] + ordered[-3]) / 2)
    verdict = judge(summary, samples, limit, baseline_expected=False)
    assert verdict.outcome == "inconclusive"


def test_a_difference_below_the_floor_is_no_regression() -> None:
    fast: dict[str, Any] = {"ttft": 0.004, "itl": 0.0005, "slow": 1.6}
    assert judge(*simulate(2, **fast), OBJECTIVES, baseline_expected=True).outcome == "pass"
    strict = replace(OBJECTIVES, floor_seconds={})
    assert judge(*simulate(2, **fast), strict, baseline_expected=True).outcome == "fail"


def test_too_few_samples_never_pass() -> None:
    verdict = judge(*simulate(1, pairs=19), OBJECTIVES, baseline_expected=True)
    assert verdict.outcome == "inconclusive"
    assert "19 successful requests of the canary; 20 are needed" in verdict.summary


@pytest.mark.parametrize(
    ("knobs", "outcome"),
    [
        ({"errors": 0.3}, "fail"),
        ({"errors": 1.0}, "fail"),
        ({"baseline_errors": 1.0}, "infrastructure_fault"),
        ({"errors": 0.3, "baseline_errors": 0.3, "pairs": 80}, "infrastructure_fault"),
    ],
)
def test_errors_are_the_models_fault_only_if_the_baseline_has_fewer(
    knobs: dict[str, Any], outcome: str
) -> None:
    assert judge(*simulate(3, **knobs), OBJECTIVES, baseline_expected=True).outcome == outcome


@pytest.mark.parametrize(
    ("failed", "looks", "baseline", "outcome"),
    [
        (1, 1, 0, "pass"),  # 1 % is allowed
        (3, 1, 0, "inconclusive"),  # 7.9 % of all servers at 1 % would show it
        (4, 1, 0, "fail"),  # 1.8 %
        (4, 3, 0, "inconclusive"),
        (5, 3, 0, "fail"),  # 0.3 %
        (3, 1, 400, "fail"),  # beside none of 400: 0.8 %
    ],
)
def test_errors_fail_by_exact_tests_at_what_one_look_may_err(
    failed: int, looks: int, baseline: int, outcome: str
) -> None:
    both = simulate(1, pairs=max(300, baseline), tokens=2, spikes=0.0)[1]
    samples = [
        replace(sample, ok=False, error="cut") if sample.pair in range(0, 30 * failed, 30) else sample
        for sample in both
        if sample.arm == "canary" and sample.pair in range(0, 30 * 10, 3)
    ]
    samples += [sample for sample in both if sample.arm == "baseline" and baseline]
    verdict = judge(
        summary_of(samples), samples, replace(OBJECTIVES, looks=looks), baseline_expected=bool(baseline)
    )
    errors = next(check for check in verdict.checks if check.metric == "errors")
    assert (errors.arm_value, errors.outcome) == (failed / 100, outcome)


def test_one_error_in_forty_proves_nothing_against_one_percent() -> None:
    _, samples = simulate(1)
    broken = [replace(samples[0], ok=False, error="cut"), *samples[1:]]
    verdict = judge(summary_of(broken), broken, OBJECTIVES, baseline_expected=True)
    assert verdict.outcome == "inconclusive"


def test_a_generator_that_was_too_slow_is_never_the_models_fault() -> None:
    summary, samples = simulate(1, slow=5)
    summary["generator"] = {"valid": False, "reasons": ["its event loop ran 900 ms late"]}
    verdict = judge(summary, samples, OBJECTIVES, baseline_expected=True)
    assert verdict.outcome == "infrastructure_fault"
    assert "900 ms late" in verdict.summary


@pytest.mark.parametrize("generator", [None, {}, {"valid": None}, {"valid": "yes"}])
def test_a_generator_that_says_nothing_of_itself_is_not_taken_for_a_good_one(generator: Any) -> None:
    summary, samples = simulate(1)
    verdict = judge(summary | {"generator": generator}, samples, OBJECTIVES, baseline_expected=True)
    assert verdict.outcome == "infrastructure_fault"


@pytest.mark.parametrize("arm", ["canary", "baseline"])
@pytest.mark.parametrize(("cut", "outcome"), [(2, "pass"), (9, "inconclusive")])
def test_requests_that_outlast_the_run_are_no_failures_and_too_many_of_them_no_pass(
    arm: str, cut: int, outcome: str
) -> None:
    """Whoever hangs is slow: a run must not be good because its slowest answers never came."""
    samples = [
        replace(sample, ok=False, error="censored")
        if sample.arm == arm and sample.pair in range(0, 10 * cut, 10)
        else sample
        for sample in simulate(1, pairs=100, tokens=8)[1]
    ]
    verdict = judge(summary_of(samples), samples, OBJECTIVES, baseline_expected=True)
    assert verdict.outcome == outcome
    errors = next(check for check in verdict.checks if check.metric == "errors")
    assert (errors.arm_value, errors.outcome) == (0.0, "pass")
    assert any(f"9 of 100 requests of the {arm} outlasted the run" in why for why in verdict.reasons) == (
        cut == 9
    )


@pytest.mark.parametrize("key", ["requests", "succeeded", "censored"])
def test_rows_that_say_other_than_the_summary_decide_nothing(key: str) -> None:
    summary, samples = simulate(1)
    arm = summary["arms"]["canary"]
    summary["arms"] = {**summary["arms"], "canary": {**arm, key: arm[key] + 1}}
    verdict = judge(summary, samples, OBJECTIVES, baseline_expected=True)
    assert verdict.outcome == "inconclusive"
    assert f"the summary says {arm[key] + 1} {key} of the canary" in verdict.summary


def test_a_baseline_that_is_too_small_is_not_compared_with() -> None:
    samples = [
        sample
        for sample in simulate(1, pairs=60, tokens=8)[1]
        if sample.arm == "canary" or (sample.pair or 0) < 49
    ]
    found = judge(summary_of(samples), samples, replace(OBJECTIVES, min_samples=50), baseline_expected=True)
    assert found.outcome == "inconclusive"
    assert [check for check in found.checks if check.kind == "baseline"] == []
    assert any(check.kind == "slo" for check in found.checks)


def split(canary: int, answered: int = 200, probes: int = 200) -> dict[str, Any]:
    return {"probes": probes, "answered": answered, "canary": canary, "statuses": {"200": answered}}


@pytest.mark.parametrize(
    ("seen", "share", "outcome"),
    [
        (split(10), 0.05, "pass"),
        (split(52), 0.25, "pass"),
        (split(38), 0.25, "pass"),  # a healthy one is as far off once in twenty times
        (split(29), 0.25, "infrastructure_fault"),  # once in two thousand
        (split(50), 0.05, "infrastructure_fault"),
        (split(0), 0.05, "infrastructure_fault"),
        (split(1), 0.0, "infrastructure_fault"),
        (split(200), 1.0, "pass"),
        (split(10, answered=150), 0.05, "infrastructure_fault"),
        (split(0, answered=0), 0.05, "infrastructure_fault"),
        ({**split(1, answered=6, probes=6), "wanted": 200}, 0.05, "inconclusive"),
        ({**split(10), "wanted": 200}, 0.05, "pass"),
        (None, 0.05, "inconclusive"),
        ({}, 0.05, "inconclusive"),
    ],
)
def test_the_observed_split_has_to_be_the_one_that_was_asked_for(
    seen: dict[str, Any] | None, share: float, outcome: str
) -> None:
    summary, samples = simulate(1, pairs=60)
    verdict = judge(
        {**summary, "split": seen}, samples, OBJECTIVES, baseline_expected=True, expected_share=share
    )
    assert verdict.outcome == outcome


def test_an_ill_device_is_an_infrastructure_fault_and_an_unknown_one_is_no_pass() -> None:
    data = simulate(1, pairs=60)

    def with_device(device: dict[str, Any] | None) -> str:
        return judge(*data, OBJECTIVES, baseline_expected=True, device=device, device_expected=True).outcome

    assert with_device({"state": "healthy"}) == "pass"
    assert with_device({"state": "unhealthy", "text": "1 uncorrected ECC error"}) == "infrastructure_fault"
    assert with_device({"state": "?"}) == "inconclusive"
    assert with_device({}) == "inconclusive"
    assert with_device(None) == "inconclusive"


def test_samples_of_several_runs_are_judged_together() -> None:
    samples = [
        replace(sample, run=run) for run in (1, 2) for sample in simulate(run, pairs=15)[1]
    ]  # pair numbers and clocks of the runs overlap
    verdict = judge(summary_of(samples), samples, OBJECTIVES, baseline_expected=True)
    assert verdict.outcome == "pass"


# What is taken away or spoilt can never make a verdict better than what it was with everything there.

SUMMARY, SAMPLES = simulate(11, pairs=24, tokens=4)
FIELDS = ["ttft", "e2e", "chunk_times", "chunk_tokens", "ok", "error"]


def spoil(sample: Sample, field: str) -> Sample:
    values: dict[str, Any] = {
        "ttft": math.nan,
        "e2e": None,
        "chunk_times": (math.nan,) * len(sample.chunk_times),
        "chunk_tokens": (),
        "ok": False,
        "error": "censored",
    }
    return replace(sample, **{field: values[field]} | ({"ok": False} if field == "error" else {}))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(
    st.sets(st.integers(0, len(SAMPLES) - 1), max_size=30),
    st.dictionaries(st.integers(0, len(SAMPLES) - 1), st.sampled_from(FIELDS), max_size=4),
    st.sets(st.sampled_from(["arms", "generator", "samples", "summary", "canary", "baseline"]), max_size=2),
)
def test_nothing_missing_or_spoilt_ever_passes(
    dropped: set[int], spoilt: dict[int, str], removed: set[str]
) -> None:
    if not (dropped or spoilt or removed):
        return
    summary: dict[str, Any] | None = {key: value for key, value in SUMMARY.items() if key not in removed}
    samples: list[Sample] | None = [
        spoil(sample, spoilt[number]) if number in spoilt else sample
        for number, sample in enumerate(SAMPLES)
        if number not in dropped and sample.arm not in removed
    ]
    if "samples" in removed:
        samples = None
    if "summary" in removed:
        summary = None
    verdict = judge(summary, samples, OBJECTIVES, baseline_expected=True)
    assert verdict.outcome != "pass"


def test_the_same_data_complete_passes() -> None:
    assert judge(SUMMARY, SAMPLES, OBJECTIVES, baseline_expected=True).outcome == "pass"


@pytest.mark.parametrize("field", ["ttft", "itl", "e2e"])
def test_a_metric_that_nobody_measured_is_inconclusive(field: str) -> None:
    bare: dict[str, Any] = {"chunk_times": (), "chunk_tokens": ()} if field == "itl" else {field: None}
    samples = [replace(sample, **bare) for sample in SAMPLES]
    verdict = judge(summary_of(samples), samples, OBJECTIVES, baseline_expected=True)
    assert verdict.outcome == "inconclusive"
    assert f"{field} is missing or no number in 24 of 24 answers of the canary" in verdict.reasons


def test_no_results_at_all_are_inconclusive() -> None:
    assert judge(None, None, OBJECTIVES, baseline_expected=False).outcome == "inconclusive"
    assert judge({}, [], OBJECTIVES, baseline_expected=False).outcome == "inconclusive"


def test_a_verdict_survives_json() -> None:
    verdict = judge(*simulate(1, slow=2.5), OBJECTIVES, baseline_expected=True)
    text = json.dumps(verdict.to_dict(), allow_nan=False)
    assert Verdict.from_dict(json.loads(text)) == verdict


def test_objectives_survive_json_and_refuse_what_could_never_be_missed() -> None:
    assert Objectives.from_dict(json.loads(json.dumps(OBJECTIVES.to_dict()))) == OBJECTIVES
    assert Objectives.from_dict({**OBJECTIVES.to_dict(), "max_ratio": 2.0}).max_ratio["itl"] == 2.0
    with pytest.raises(Refused, match="ttft_p95_seconds = nan"):
        replace(OBJECTIVES, ttft_p95_seconds=math.nan)
    with pytest.raises(Refused, match="ttft_p99"):
        Objectives.from_dict({"ttft_p99": 1})


def test_times_are_said_in_units_that_people_read() -> None:
    assert [say_time(seconds) for seconds in (0.0083, 0.312, 1.236)] == ["8.3 ms", "312 ms", "1.24 s"]
