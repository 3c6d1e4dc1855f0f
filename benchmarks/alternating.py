"""A B A B: both sides of a comparison meet the same weather."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def alternate(sides: Sequence[Callable[[], T]], rounds: int, warm_up: int = 1) -> list[tuple[T, ...]]:
    """Results of each round, in the order of `sides`. The sides take turns in going first.

    warm_up: rounds whose results are thrown away (files that get cached, processes that import late).
    """
    kept = []
    for number in range(warm_up + rounds):
        turn = number % len(sides)
        order = [*range(turn, len(sides)), *range(turn)]
        found = {index: sides[index]() for index in order}
        if number >= warm_up:
            kept.append(tuple(found[index] for index in range(len(sides))))
    return kept
