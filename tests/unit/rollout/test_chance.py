"""Exact tests against values worked out by hand or by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.rollout.chance import (
    binomial_at_least,
    binomial_two_sided,
    block_counts,
    fisher_more,
    holm,
    resampled_quantiles,
)


@given(st.integers(1, 60), st.floats(0.001, 0.999), st.data())
def test_binomial_tails_are_exact(trials: int, probability: float, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, trials))
    exact = sum(
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k)
        for k in range(count, trials + 1)
    )
    assert binomial_at_least(count, trials, probability) == pytest.approx(exact, rel=1e-9)


def test_binomial_tails_at_the_ends() -> None:
    assert binomial_at_least(1, 100, 0.0) == 0.0
    assert binomial_at_least(0, 100, 0.0) == 1.0
    assert binomial_at_least(100, 100, 1.0) == 1.0
    assert binomial_two_sided(199, 200, 1.0) == 0.0
    assert binomial_two_sided(10, 200, 0.05) > 0.9


def test_fisher_counts_the_tables_that_are_at_least_as_bad() -> None:
    # 3 hits among 8, of which the first 4 are ours: at least 2 of the hits are ours in 1/2 of all tables.
    tables = list(itertools.combinations(range(8), 3))
    bad = sum(sum(hit < 4 for hit in table) >= 2 for table in tables)
    assert fisher_more(2, 4, 1, 4) == pytest.approx(bad / len(tables))
    assert fisher_more(0, 4, 0, 4) == 1.0


def test_holm_stops_at_the_first_that_is_not_rejected() -> None:
    assert holm([0.04, 0.01, 0.001], 0.05) == [True, True, True]
    assert holm([0.04, 0.03, 0.001], 0.05) == [False, False, True]
    assert holm([0.02, 0.02, 0.02], 0.05) == [False, False, False]
    assert holm([], 0.05) == []


def test_every_resample_draws_as_many_units_as_there_are() -> None:
    counts = block_counts(41, 50, np.random.default_rng(1))
    assert counts.shape == (50, 41)
    assert (counts.sum(axis=1) == 41).all()


@settings(max_examples=40)
@given(st.integers(0, 1000), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_resampled_quantile_is_the_quantile_of_the_resample(seed: int, q: float) -> None:
    random = np.random.default_rng(seed)
    units = random.integers(0, 12, size=60)
    values = random.normal(size=60).round(1)
    counts = block_counts(12, 5, random)
    (found,) = resampled_quantiles(values, units, counts, q)
    for row, value in zip(counts, found, strict=True):
        drawn = np.repeat(values, row[units])
        assert value == np.quantile(drawn, q, method="inverted_cdf")


def test_a_resample_without_a_value_has_no_quantile() -> None:
    (found,) = resampled_quantiles(np.array([1.0]), np.array([0]), np.array([[0, 2], [1, 1]]), 0.5)
    assert math.isnan(found[0])
    assert found[1] == 1.0
