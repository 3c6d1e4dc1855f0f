"""Exact tests against values worked out by hand or by enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.rollout.chance import (
    binomial_at_least,
    binomial_two_sided,
    fisher_more,
    holm,
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
