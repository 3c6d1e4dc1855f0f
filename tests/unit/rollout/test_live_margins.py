"""What the judge promises of real traffic's intervals and margins, on spans made for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.rollout.test_latency import lasting, single, width
from trainyard.rollout.chance import Floats
from trainyard.rollout.histograms import Histogram, Span
from trainyard.rollout.live import Live, check_live
from trainyard.rollout.live_arms import compared, needed
from trainyard.rollout.verdict import COMPARED, Check, Objectives

EDGES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, math.inf)
OBJECTIVES = Objectives(
    ttft_p95_seconds=2.5, itl_p95_seconds=2.5, min_samples=50, floor_seconds={}, max_ratio={"ttft": 1.25}
)


def spans(means: Floats, *, slow: float = 0.0, finished: Mapping[str, float] | None = None) -> list[Span]:
    """Forty answers each, all in the bucket of their mean but a share of `slow` ones, which took 2 s."""
    found = []
    for mean in means:
        counts = np.zeros(len(EDGES))
        late = round(40 * slow)
        counts[np.searchsorted(EDGES, mean)] = 40 - late
        counts[EDGES.index(2.5)] += late
        histogram = Histogram(EDGES, counts, float(mean * (40 - late) + 2.0 * late))
        found.append(Span({"ttft": histogram}, finished or {"stop": 40.0, "error": 0.0}))
    return found


def noise(seed: int, count: int, sigma: float = 0.4) -> Floats:
    means: Floats = 0.16 * np.exp(np.random.default_rng(seed).normal(0, sigma, count).clip(-0.44, 0.44))
    return means


def judged(canary: list[Span], baseline: list[Span], objectives: Objectives = OBJECTIVES) -> dict[str, Check]:
    checks = compared(canary, baseline, "ttft", objectives, np.random.default_rng(1))
    return {check.statistic: check for check in checks}


def test_a_mean_that_looks_equal_does_not_pass_before_it_is_shown_to_be() -> None:
    strict = replace(OBJECTIVES, max_ratio={"ttft": 1.1})
    for count, outcome in ((12, "inconclusive"), (300, "pass")):
        means = noise(1, count)
        check = judged(spans(means), spans(np.random.default_rng(2).permutation(means)), strict)["mean"]
        assert check.arm_value == pytest.approx(check.baseline_value)
        assert check.outcome == outcome


def test_blame_takes_more_evidence_where_three_metrics_share_the_error() -> None:
    """An end of the interval is what a single test would go by."""
    three = replace(OBJECTIVES, max_ratio=dict.fromkeys(COMPARED, 1.25))
    found = set()
    for factor in np.linspace(1.25, 1.45, 60):
        check = judged(spans(noise(1, 14) * factor), spans(noise(2, 14)), three)["mean"]
        assert check.low is not None
        found.add((bool(check.low > 1.25 * 1.001), check.outcome))
    assert {(True, "inconclusive"), (True, "fail"), (False, "inconclusive")} <= found
    assert (False, "fail") not in found


def test_an_alarm_of_one_bet_among_four_takes_four_times_the_evidence() -> None:
    assert needed(replace(OBJECTIVES, max_ratio=dict.fromkeys(COMPARED, 1.25))) == pytest.approx(math.log(80))
    assert needed(replace(OBJECTIVES, max_ratio={})) == pytest.approx(math.log(20))


def test_spans_that_are_like_their_neighbours_prove_less() -> None:
    widths = []
    for factors in (lasting(300), single(lasting(300))):
        own = noise(7, 300, 0.05) * np.clip(factors, 0.65, 1.5)
        widths.append(width(judged(spans(own), spans(noise(8, 300, 0.05)))["mean"]))
    assert widths[0] > 1.8 * widths[1]


@pytest.mark.parametrize("arm", ["canary", "baseline"])
@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_sum_that_the_buckets_cannot_have_is_compared_with_nothing(arm: str, factor: float) -> None:
    arms = {name: spans(noise(number, 40)) for number, name in enumerate(("canary", "baseline"))}
    arms[arm] = [
        replace(span, histograms={"ttft": replace(histogram, total=histogram.total * factor)})
        for span in arms[arm]
        for histogram in span.histograms.values()
    ]
    (check,) = judged(arms["canary"], arms["baseline"]).values()
    assert (check.kind, check.outcome) == ("samples", "inconclusive")
    assert f"do not fit the buckets of the {arm}" in check.text


def test_a_limit_passes_only_where_the_whole_bucket_of_p95_is_within_it() -> None:
    live = Live(spans(np.full(20, 0.16)), spans(np.full(20, 0.16)))
    for limit, outcome in ((0.25, "pass"), (0.24, "inconclusive"), (0.1, "fail")):
        objectives = replace(OBJECTIVES, ttft_p95_seconds=limit)
        checks = check_live(live, objectives, baseline_expected=True)
        assert [check.outcome for check in checks if check.kind == "slo"] == [outcome]


def test_a_tail_takes_more_evidence_where_edges_and_metrics_share_the_error() -> None:
    three = replace(OBJECTIVES, max_ratio=dict.fromkeys(COMPARED, 1.25))
    failed: dict[int, list[bool]] = {1: [], 3: []}
    for late in range(3, 25):
        canary = [spans(np.array([0.16]), slow=0.05 * (place % 40 < late))[0] for place in range(40)]
        baseline = [spans(np.array([0.16]), slow=0.05 * (place % 13 == 5))[0] for place in range(40)]
        random = np.random.default_rng(3)
        random.shuffle(canary)
        for objectives in (OBJECTIVES, three):
            check = judged(canary, baseline, objectives)["tail"]
            failed[len(objectives.max_ratio)].append(check.outcome == "fail")
    assert sum(failed[3]) < sum(failed[1]) < len(failed[1])


def test_too_few_answers_are_not_compared() -> None:
    canary, baseline = spans(noise(1, 14)), spans(noise(2, 14))
    assert judged(canary, baseline)["mean"].kind == "baseline"
    (check,) = judged(canary, baseline, replace(OBJECTIVES, min_samples=561)).values()
    assert check.outcome == "inconclusive"
    assert "560 and 560 figures of ttft; 561 are needed of each" in check.text
