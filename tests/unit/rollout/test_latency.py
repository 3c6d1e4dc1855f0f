"""What `latency` promises of an interval, a p-value and a margin, each on data made for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trainyard.bench.samples import Sample
from trainyard.rollout.chance import Floats
from trainyard.rollout.latency import Pair, _worse, check_slos, compare, tail_size
from trainyard.rollout.measured import Arm, split_arms
from trainyard.rollout.verdict import COMPARED, Check, Objectives

OBJECTIVES = Objectives(
    ttft_p95_seconds=1.0, itl_p95_seconds=1.0, e2e_p95_seconds=1.0, floor_seconds={}, max_ratio={"ttft": 1.25}
)
Times = Mapping[str, Floats]


def sampled(arm: str, times: Times, number: int) -> Sample:
    """times: seconds by metric; what is not there is a tenth of a second, the same in every answer."""
    ttft, itl, e2e = (float(times[name][number]) if name in times else 0.1 for name in COMPARED)
    return Sample(
        arm=arm, pair=number, started=number + (arm == "baseline") / 2, ttft=ttft, e2e=e2e, ok=True,
        status=200, chunk_times=(ttft, ttft + itl), chunk_tokens=(1, 1),
    )  # fmt: skip


def arms(canary: Times, baseline: Times) -> tuple[Arm, Arm]:
    pairs = len(next(iter(canary.values())))
    both = (("canary", canary), ("baseline", baseline))
    found = split_arms([sampled(name, times, number) for number in range(pairs) for name, times in both])
    return found["canary"], found["baseline"]


def compared(
    canary: Floats | Times, baseline: Floats | Times, objectives: Objectives = OBJECTIVES, **changed: Any
) -> dict[str, Check]:
    """Checks by `ttft p50` and the like. Arrays are of ttft."""
    ours, theirs = (each if isinstance(each, Mapping) else {"ttft": each} for each in (canary, baseline))
    random = np.random.default_rng(1)
    checks = compare(*arms(ours, theirs), replace(objectives, **changed), random)
    return {f"{check.metric} {check.statistic}": check for check in checks}


def noise(seed: int, pairs: int, sigma: float = 0.5) -> Floats:
    return 0.1 * np.exp(np.random.default_rng(seed).normal(0, sigma, pairs))


def lasting(pairs: int, memory: float = 0.95) -> Floats:
    """Factors of which neighbours are alike."""
    random = np.random.default_rng(1)
    logs = random.normal(size=pairs)
    for at in range(1, pairs):
        logs[at] = memory * logs[at - 1] + np.sqrt(1 - memory**2) * logs[at]
    return np.exp(0.5 * logs)


def single(factors: Floats) -> Floats:
    """The same ones, in an order of chance."""
    return np.random.default_rng(2).permutation(factors)


def width(check: Check) -> float:
    assert check.low is not None
    assert check.high is not None
    return float(np.log(check.high / check.low))


def test_the_parts_of_an_error_are_those_that_were_agreed() -> None:
    assert OBJECTIVES.alpha == pytest.approx(0.05)
    assert replace(OBJECTIVES, looks=3).alpha == pytest.approx(0.05 / 3)
    assert replace(OBJECTIVES, looks=3).beta == pytest.approx(0.05)
    assert replace(OBJECTIVES, confidence=0.99).beta == pytest.approx(0.01)


def test_a_median_that_looks_equal_does_not_pass_before_it_is_shown_to_be() -> None:
    strict = replace(OBJECTIVES, max_ratio={"ttft": 1.1})
    for pairs, outcome in ((40, "inconclusive"), (2000, "pass")):
        baseline = noise(1, pairs)
        canary = np.random.default_rng(2).permutation(baseline)  # all percentiles are the same
        check = compared(canary, baseline, strict)["ttft p50"]
        assert (check.arm_value, check.outcome) == (check.baseline_value, outcome)


def test_a_median_passes_where_the_end_of_its_interval_is_within_the_margin() -> None:
    outcomes = set()
    for factor in np.linspace(0.8, 1.25, 30):
        check = compared(noise(1, 60) * factor, noise(2, 60))["ttft p50"]
        assert check.high is not None
        if abs(check.high / 1.25 - 1) > 0.001:
            assert (check.outcome == "pass") == (check.high < 1.25)
            outcomes.add(check.outcome)
    assert outcomes == {"pass", "inconclusive"}


def test_what_slows_both_arms_of_a_pair_cancels_out() -> None:
    shared = noise(3, 60, 1.0)
    assert compared(shared * noise(4, 60, 0.02), shared * noise(5, 60, 0.02))["ttft p50"].outcome == "pass"


@pytest.mark.parametrize("slow", ["canary", "baseline"])
def test_noise_of_one_arm_that_lasts_makes_the_interval_wider(slow: str) -> None:
    widths = []
    for factors in (lasting(600), single(lasting(600))):
        canary, baseline = noise(7, 600, 0.2), noise(8, 600, 0.2)
        found = (
            compared(canary * factors, baseline) if slow == "canary" else compared(canary, baseline * factors)
        )
        widths.append(width(found["ttft p50"]))
    assert widths[0] > 2 * widths[1]


def test_noise_that_lasts_makes_the_interval_of_an_objective_wider() -> None:
    widths = []
    for factors in (lasting(600), single(lasting(600))):
        canary, _ = arms({"ttft": noise(7, 600, 0.2) * factors}, {"ttft": noise(8, 600)})
        widths.append(width(check_slos(canary, OBJECTIVES, np.random.default_rng(1))[0]))
    assert widths[0] > 2 * widths[1]


FACTORS = np.linspace(1.25, 2.0, 60)


def failed_at(objectives: Objectives) -> list[bool]:
    """Whether ttft's median fails, for canaries that are slower and slower; the other metrics are equal."""
    baseline = {metric: noise(number, 60) for number, metric in enumerate(COMPARED)}
    canaries = [{**baseline, "ttft": noise(9, 60) * factor} for factor in FACTORS]
    return [compared(canary, baseline, objectives)["ttft p50"].outcome == "fail" for canary in canaries]


@pytest.mark.parametrize(
    "stricter",
    [{"max_ratio": dict.fromkeys(COMPARED, 1.25)}, {"looks": 5}, {"confidence": 0.99}],
    ids=["more metrics", "more looks", "more confidence"],
)
def test_blame_takes_more_evidence_where_more_is_asked_of_the_same_error(stricter: dict[str, Any]) -> None:
    alone, among = failed_at(OBJECTIVES), failed_at(replace(OBJECTIVES, **stricter))
    assert sum(among) < sum(alone) < len(alone)
    assert all(one for one, other in zip(alone, among, strict=True) if other)


def test_of_three_objectives_one_fails_only_beyond_what_would_fail_it_alone() -> None:
    """An end of an interval is what a single test would go by; Holm asks for more."""
    canary, _ = arms({"ttft": noise(1, 2000)}, {"ttft": noise(2, 2000)})

    def judged(limit: float) -> Check:
        return check_slos(canary, replace(OBJECTIVES, ttft_p95_seconds=limit), np.random.default_rng(1))[0]

    low = judged(1.0).low
    assert low is not None
    assert [judged(low * part).outcome for part in (0.96, 0.995, 1.01, 1.2)] == [
        "fail", "inconclusive", "inconclusive", "pass",
    ]  # fmt: skip


def slo_outcomes(canary: Arm, **limits: Any) -> Sequence[str]:
    checks = check_slos(canary, replace(OBJECTIVES, **limits), np.random.default_rng(1))
    return [f"{check.metric} {check.outcome}" for check in checks]


def test_every_limit_is_held_and_one_in_the_middle_of_the_interval_decides_nothing() -> None:
    canary, _ = arms({"ttft": noise(1, 100)}, {"ttft": noise(2, 100)})
    assert slo_outcomes(canary) == ["ttft pass", "itl pass", "e2e pass"]
    assert slo_outcomes(canary, e2e_p95_seconds=0.05) == ["ttft pass", "itl pass", "e2e fail"]
    assert slo_outcomes(canary, itl_p95_seconds=0.05) == ["ttft pass", "itl fail", "e2e pass"]
    p95 = float(np.quantile(noise(1, 100), 0.95, method="inverted_cdf"))
    assert slo_outcomes(canary, ttft_p95_seconds=p95) == ["ttft pass", "itl pass", "e2e pass"]
    assert slo_outcomes(canary, ttft_p95_seconds=p95 * 0.99)[0] == "ttft inconclusive"


def test_p95_has_to_be_shown_from_the_size_on_that_was_declared() -> None:
    assert [tail_size(margin) for margin in (1.25, 1.5, 1.1)] == [599, 300, 3281]
    assert tail_size(1.0) > 10**9


def test_a_p95_that_looks_equal_does_not_pass_before_it_is_shown_to_be() -> None:
    """Below the declared size nothing that speaks against it is enough; from there on it is not."""
    baseline = noise(1, 700, 2.0)
    canary = np.random.default_rng(3).permutation(baseline)
    for margin, outcome in ((1.1, "pass"), (1.25, "inconclusive")):  # 3,281 and 599 are the sizes
        check = compared(canary, baseline, max_ratio={"ttft": margin})["ttft p95"]
        assert (check.arm_value, check.outcome) == (check.baseline_value, outcome)


def test_a_peak_of_the_load_hinders_few_equal_canaries_at_p95() -> None:
    """Their p95 would else rest on a few dozen requests of the peak: half of these would be held."""
    peak = np.exp(np.maximum(0.0, 3 - np.abs(np.arange(700) - 350) / 12))
    found = [compared(peak * noise(seed, 700), peak * noise(seed + 50, 700))["ttft p95"] for seed in range(8)]
    assert sum(check.outcome == "pass" for check in found) >= 7


def test_a_canary_that_is_slow_only_under_load_is_not_excused_by_the_load() -> None:
    """Measured against the level of its moment it is within the margin; its users wait twice as long."""
    busy = np.arange(1000) >= 940
    load = np.where(busy, 10.0, 1.0)
    check = compared(load * np.where(busy, 2.0, 1.0) * noise(1, 1000), load * noise(2, 1000))["ttft p95"]
    assert check.outcome == "inconclusive"
    assert "2.09 x the baseline's" in check.text


def test_p99_takes_a_tail_for_slow_that_a_drift_of_both_arms_hides() -> None:
    random = np.random.default_rng(6)
    drift = np.exp(1.5 * np.sin(np.arange(1000) / 100))
    canary, baseline = drift * noise(1, 1000), drift * noise(2, 1000)
    assert compared(canary, baseline)["ttft p99"].outcome == "pass"
    canary = canary * np.where(random.random(1000) < 0.03, 5.0, 1.0)
    check = compared(canary, baseline)["ttft p99"]
    assert check.outcome != "pass"
    assert "without the drift of both" in check.text


@pytest.mark.parametrize(
    ("drawn", "excess", "p_value"), [(0.5, 0.03, 0.06), (0.03, 0.5, 0.06), (0.9, 0.8, 1.0)]
)
def test_the_smaller_of_two_p_values_counts_twice(drawn: float, excess: float, p_value: float) -> None:
    ours = np.where(np.arange(999) < round(drawn * 1000) - 1, 0.1, 0.2)
    pair = Pair("ttft", "p99", ours, np.full(999, 0.1), 0.2, 0.1, to_show=False, excess=(excess, 2.0))
    assert _worse(pair, OBJECTIVES) == pytest.approx(p_value)
    median = replace(pair, statistic="p50")
    assert _worse(median, OBJECTIVES) == pytest.approx(drawn)
