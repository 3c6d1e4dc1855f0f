"""Evidence that may be looked at at any time, against arithmetic and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.rollout import evidence, tails
from trainyard.rollout.chance import Floats
from trainyard.rollout.resampling import block_length

NEEDED = math.log(20)
SIGMA = 0.5  # of log times; the two arms' add up


def times(seed: int, runs: int, pairs: int, ratio: float, *, own: float = 0.0) -> tuple[Floats, Floats]:
    """Log times of both arms: a drift that both share, noise of each request. own: share of the noise's
    variance that lasts, in each arm by itself."""
    random = np.random.default_rng(seed)
    drift = np.cumsum(random.normal(0, 0.03, (runs, pairs)), axis=1)
    arms = []
    for factor in (ratio, 1.0):
        lasting = np.zeros((runs, pairs))
        lasting[:, 0] = random.normal(0, 1, runs)
        for at in range(1, pairs):
            lasting[:, at] = 0.5 * lasting[:, at - 1] + math.sqrt(0.75) * random.normal(0, 1, runs)
        noise = math.sqrt(1 - own) * random.normal(0, 1, (runs, pairs)) + math.sqrt(own) * lasting
        arms.append(math.log(factor) + drift + SIGMA * noise)
    return arms[0], arms[1]


def alarms(worth: Floats) -> float:
    return float((worth.max(axis=1) >= NEEDED).mean())


@pytest.mark.parametrize(("ratio", "own"), [(1.0, 0.0), (1.1, 0.0), (1.0, 0.2)])
def test_looking_after_every_pair_raises_no_more_false_alarms_than_agreed(ratio: float, own: float) -> None:
    canary, baseline = times(1, 400, 300, ratio, own=own)
    allowed = baseline + math.log(1.1)
    assert alarms(evidence.body(canary - allowed)) <= 0.05
    assert alarms(evidence.tail(np.exp(canary), np.exp(allowed))) <= 0.05


def test_a_canary_twice_as_slow_is_caught_within_twenty_pairs_in_half_of_the_runs() -> None:
    canary, baseline = times(2, 400, 60, 2.0)
    worth = evidence.body(canary - baseline - math.log(1.1))
    assert (worth[:, :20].max(axis=1) >= NEEDED).mean() >= 0.5
    assert alarms(worth) >= 0.95


def test_a_slow_tail_is_evidence_though_the_median_is_equal() -> None:
    canary, baseline = times(3, 200, 400, 1.0)
    canary += math.log(5) * (np.random.default_rng(3).random(canary.shape) < 0.15)
    worth = evidence.tail(np.exp(canary), np.exp(baseline + math.log(1.1)))
    assert alarms(worth) >= 0.9


def test_the_worth_of_one_pair_is_fair_against_every_symmetric_noise() -> None:
    # Mean of the factor over +x and -x is exactly 1: nothing is gained on average.
    for size in (0.01, 0.3, 2.0, 50.0):
        up, down = (float(np.exp(evidence.body(np.array([sign * size]))[0])) for sign in (1, -1))
        assert (up + down) / 2 == pytest.approx(1.0)


@given(st.lists(st.sampled_from([math.nan, -0.5, 0.0, 0.7]), min_size=1, max_size=60))
def test_a_pair_that_says_nothing_leaves_the_worth_as_it_was(scores: list[float]) -> None:
    values = np.array(scores)
    steps = np.diff(np.concatenate([[0.0], evidence.body(values)]))
    assert np.allclose(steps[np.isnan(values)], 0.0)


@given(st.integers(1, 80), st.integers(0, 1000))
def test_the_past_is_judged_the_same_whatever_comes_later(cut: int, seed: int) -> None:
    canary, baseline = times(seed, 1, 100, 1.3)
    whole = evidence.body(canary - baseline), evidence.tail(np.exp(canary), np.exp(baseline))
    canary, baseline = canary[:, :cut], baseline[:, :cut]
    part = evidence.body(canary - baseline), evidence.tail(np.exp(canary), np.exp(baseline))
    for long, short in zip(whole, part, strict=True):
        assert np.allclose(long[:, :cut], short)


def test_failures_are_evidence_only_beyond_the_allowed_rate_and_the_baselines() -> None:
    random = np.random.default_rng(4)

    def failed(rate: float) -> Floats:
        return (random.random((300, 300)) < rate).astype(np.float64)

    assert alarms(evidence.errors(failed(0.01), failed(0.01), 0.01)) <= 0.05
    assert alarms(evidence.errors(failed(0.01), None, 0.01)) <= 0.05
    assert alarms(evidence.errors(failed(0.3), failed(0.3), 0.01)) <= 0.05
    assert alarms(evidence.errors(failed(0.2), failed(0.005), 0.01)) >= 0.99
    assert alarms(evidence.errors(failed(0.1), None, 0.01)) >= 0.99


def test_noise_that_lasts_is_worth_less_and_noise_that_does_not_loses_nothing() -> None:
    random = np.random.default_rng(1)
    single = random.normal(size=(200, 300))
    lasting = single.copy()
    for at in range(1, 300):
        lasting[:, at] = 0.9 * lasting[:, at - 1] + math.sqrt(0.19) * lasting[:, at]
    assert np.median(evidence.inflation(single)[:, -1]) < 1.2
    assert np.median(evidence.inflation(lasting)[:, -1]) > 5
    bare = np.cumsum(np.log1p(np.tanh(0.7 * lasting[..., None] * evidence.BODY_BETS)), axis=1)
    worth = evidence.mean_worth(list(np.moveaxis(bare, -1, 0)), [1 / 4] * 4)
    assert alarms(evidence.body(0.7 * lasting)) < 0.7 * alarms(worth)


@given(st.integers(1, 99), st.integers(0, 1000))
def test_what_is_asked_of_a_pair_was_fixed_before_it_came(at: int, seed: int) -> None:
    """A bet that knows its own pair is no fair one."""
    canary, baseline = times(seed, 1, 100, 1.0, own=0.5)
    ratio = canary - baseline
    known = ratio.copy()
    known[0, at] += 3.0
    assert evidence.inflation(known)[0, at] == evidence.inflation(ratio)[0, at]


def test_a_pair_is_not_among_those_that_say_what_is_slow() -> None:
    canary, baseline = (np.exp(side) for side in times(1, 1, 30, 1.0))
    canary[0, 24:26] = 1e6  # of twenty-five pairs the last one, and the first that is held against them
    worth = evidence.tail(canary, baseline)[0]
    assert np.allclose(worth[:25], 0.0)
    assert worth[25] > 0.0


def test_the_mean_of_bets_is_a_bet() -> None:
    worth = evidence.mean_worth([np.log(np.array([1.0, 4.0])), np.log(np.array([3.0, 0.0001]))], [0.5, 0.5])
    assert np.exp(worth) == pytest.approx([2.0, 2.00005])


def test_blocks_are_longer_where_neighbours_are_alike() -> None:
    random = np.random.default_rng(5)
    alone = random.normal(size=800)
    lasting = np.convolve(random.normal(size=850), np.ones(30), "valid")[:800]
    assert block_length(alone) <= 2 * round(800 ** (1 / 3))
    assert 30 <= block_length(lasting) <= 80
    assert block_length(alone[:20]) == 3
    assert block_length(np.zeros(100)) == 5
    assert block_length(np.full(100, math.nan)) == 5


def test_a_drift_of_both_arms_does_not_hide_the_tail_of_one() -> None:
    random = np.random.default_rng(6)
    drift = 1.5 * np.sin(np.arange(1000) / 100)
    canary, baseline = (drift + SIGMA * random.normal(size=1000) for _ in range(2))
    p_value, ratio = tails.excess(canary, baseline, 0.99)
    assert p_value > 0.05
    assert ratio == pytest.approx(1.0, abs=0.25)
    canary[random.random(1000) < 0.03] += math.log(5)
    canary[::50] = math.nan
    p_value, ratio = tails.excess(canary, baseline, 0.99)
    assert p_value < 0.001
    assert ratio > 1.5


def test_where_nothing_succeeded_there_is_no_tail() -> None:
    nothing = np.full(20, math.nan)
    assert tails.excess(nothing, nothing, 0.99) == (1.0, 1.0)
