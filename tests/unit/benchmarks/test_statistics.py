from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.alternating import alternate
from benchmarks.statistics import Pair, ratios, spread

VALUES = st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=40)


@given(VALUES)
def test_the_median_lies_between_the_least_and_the_greatest(values: list[float]) -> None:
    found = spread(values)
    assert found.least <= found.median <= found.greatest
    assert {found.least, found.greatest} <= set(values)
    assert found.count == len(values)


@given(VALUES, st.randoms())
def test_the_order_of_the_values_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert spread(shuffled) == spread(values)


@given(VALUES, st.floats(min_value=0.1, max_value=10))
def test_the_ratio_is_taken_pair_by_pair_so_a_slow_moment_cancels_out(
    values: list[float], factor: float
) -> None:
    found = ratios([Pair(value * factor, value) for value in values])
    assert found.least == pytest.approx(factor)
    assert found.greatest == pytest.approx(factor)


def test_nothing_measured_is_an_error_and_not_a_number() -> None:
    with pytest.raises(ValueError, match="no values"):
        spread([])
    with pytest.raises(ValueError, match="no ratio"):
        ratios([Pair(1.0, 0.0)])


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 3))
def test_sides_alternate_and_take_turns_in_going_first(sides: int, rounds: int, warm_up: int) -> None:
    clock = count()
    called: list[int] = []

    def side(index: int) -> tuple[int, int]:
        called.append(index)
        return index, next(clock)

    kept = alternate([lambda index=index: side(index) for index in range(sides)], rounds, warm_up)
    assert len(kept) == rounds
    assert all([index for index, _ in result] == list(range(sides)) for result in kept)
    assert len(called) == sides * (rounds + warm_up)
    for number in range(rounds + warm_up):
        turn = called[number * sides : (number + 1) * sides]
        assert sorted(turn) == list(range(sides))
        assert turn[0] == number % sides
    moments = [moment for result in kept for _, moment in result]
    assert not moments or min(moments) >= sides * warm_up
