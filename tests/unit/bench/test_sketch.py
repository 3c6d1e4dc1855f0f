"""Percentiles from buckets: how far they may be off, and that merging loses nothing."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.bench.sketch import ACCURACY, Sketch, merged
from trainyard.bench.summary import QUANTILES, quantile

SECONDS = st.floats(min_value=1e-4, max_value=100.0)
ANY_SECONDS = st.one_of(SECONDS, st.floats(min_value=-0.01, max_value=1e4), st.just(0.0))
LISTS = st.lists(ANY_SECONDS, max_size=60)


def same_after_json(sketch: Sketch) -> Sketch:
    return Sketch.from_dict(json.loads(json.dumps(sketch.to_dict())))


@given(st.lists(SECONDS, min_size=1, max_size=300), st.floats(min_value=0.0, max_value=1.0))
def test_every_percentile_is_within_the_stated_error_of_the_exact_one(values: list[float], q: float) -> None:
    exact = quantile(sorted(values), q)
    (found,) = Sketch(values).quantiles([q])
    assert abs(found / exact - 1) <= ACCURACY * (1 + 1e-6)


@given(LISTS, LISTS, LISTS)
def test_merging_in_any_order_and_grouping_is_the_same_as_counting_all(
    one: list[float], two: list[float], three: list[float]
) -> None:
    a, b, c = Sketch(one), Sketch(two), Sketch(three)
    everything = Sketch([*one, *two, *three])
    assert merged([merged([a, b]), c]) == merged([a, merged([b, c])]) == merged([c, b, a]) == everything
    assert everything.count == len(one) + len(two) + len(three)
    assert same_after_json(everything) == everything


@given(st.lists(SECONDS, min_size=1, max_size=100))
def test_count_mean_least_and_largest_are_exact(values: list[float]) -> None:
    sketch = Sketch(values)
    assert (sketch.count, sketch.least, sketch.largest) == (len(values), min(values), max(values))
    assert sketch.mean == pytest.approx(math.fsum(values) / len(values), abs=1e-9)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0])
def test_percentiles_of_four_workers_merged_are_within_a_thousandth_of_exact(sigma: float) -> None:
    chance = random.Random(sigma)
    parts = [
        [min(100.0, max(1e-4, chance.lognormvariate(math.log(0.05 * worker), sigma))) for _ in range(5000)]
        for worker in range(1, 5)
    ]
    whole = sorted(value for part in parts for value in part)
    sketch = merged(same_after_json(Sketch(part)) for part in parts)
    for q, found in zip(QUANTILES.values(), sketch.quantiles(QUANTILES.values()), strict=True):
        assert abs(found / quantile(whole, q) - 1) <= 0.001
    assert sketch.count == len(whole)


def test_weights_count_as_so_many_values() -> None:
    weighted = Sketch()
    weighted.add(0.02, 3)
    weighted.add(0.5, 0)
    assert weighted == Sketch([0.02] * 3)


def test_what_is_no_time_is_refused_and_what_is_below_the_clock_counts_as_nothing() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="cannot be counted"):
            Sketch([value])
    assert Sketch([0.0, 0.0, 1.0]).quantiles([0.5, 1.0]) == [0.0, 1.0]


def test_of_nothing_there_is_no_percentile_and_foreign_buckets_do_not_merge() -> None:
    with pytest.raises(ValueError, match="nothing was counted"):
        Sketch().quantiles([0.5])
    with pytest.raises(ValueError, match=r"accuracy 0\.01"):
        Sketch.from_dict({**Sketch([1.0]).to_dict(), "accuracy": 0.01})
