"""Resamples hold whole blocks, and their quantiles are what sorting each of them would find."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.rollout.resampling import block_counts, resampled_quantiles


def test_every_resample_draws_as_many_units_as_there_are() -> None:
    counts = block_counts(41, 50, np.random.default_rng(1))
    assert counts.shape == (50, 41)
    assert (counts.sum(axis=1) == 41).all()


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 1000))
def test_a_resample_is_made_of_blocks(units: int, length: int, seed: int) -> None:
    """A unit is drawn oftener than the one before it only where a block begins."""
    counts = block_counts(units, 20, np.random.default_rng(seed), length)
    begins = np.maximum(counts - np.roll(counts, 1, axis=1), 0).sum(axis=1)
    assert (begins <= math.ceil(units / length)).all()


@settings(max_examples=200)
@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 300),
    own=st.integers(1, 40),
    draws=st.integers(1, 40),
    q=st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 1.0]),
)
def test_a_resampled_quantile_is_the_quantile_of_the_resample(
    seed: int, size: int, own: int, draws: int, q: float
) -> None:
    random = np.random.default_rng(seed)
    units = random.integers(0, own, size=size)
    values = random.normal(size=size).round(1)
    counts = block_counts(own, draws, random)
    (found,) = resampled_quantiles(values, units, counts, q)
    for row, value in zip(counts, found, strict=True):
        drawn = np.repeat(values, row[units])
        if len(drawn):
            assert value == np.quantile(drawn, q, method="inverted_cdf")
        else:
            assert math.isnan(value)


def test_a_resample_without_a_value_has_no_quantile() -> None:
    (found,) = resampled_quantiles(np.array([1.0]), np.array([0]), np.array([[0, 2], [1, 1]]), 0.5)
    assert math.isnan(found[0])
    assert found[1] == 1.0


def test_millions_of_token_gaps_are_resampled_a_thousand_times_in_little_memory() -> None:
    units = np.repeat(np.arange(8000), 250)
    values = np.random.default_rng(1).normal(size=len(units))
    tracemalloc.start()
    counts = block_counts(8000, 1000, np.random.default_rng(0))
    middle, tail = resampled_quantiles(values, units, counts, 0.5, 0.95)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(middle).all()
    assert np.isfinite(tail).all()
    assert most < 300e6
