"""Arithmetic of the load-test benchmarks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from benchmarks.loading import Reading, kolmogorov
from benchmarks.truth import CHOICE, CHUNK, USAGE, event


def below(rate: float) -> Callable[[float], float]:
    return lambda gap: 1 - math.exp(-gap * rate)


def test_poisson_gaps_pass_and_regular_ones_do_not() -> None:
    chance = random.Random(1)
    assert kolmogorov([chance.expovariate(200) for _ in range(2000)], below(200)) > 0.05
    assert kolmogorov([1 / 200] * 2000, below(200)) < 1e-6
    assert kolmogorov([chance.expovariate(200) for _ in range(2000)], below(150)) < 1e-6


def test_an_early_stamp_is_as_wrong_as_a_late_one() -> None:
    reading = Reading((-0.1,) * 99 + (0.001,), 0.1, 1.0, 0.0)
    assert reading.p99 == 0.1
    assert reading.bias == pytest.approx(0.99, abs=0.01)


def test_the_truth_server_sends_what_a_server_would() -> None:
    data = event(CHUNK % (CHOICE % " tok", USAGE % (1, 2, 3)))
    size, rest = data.split(b"\r\n", 1)
    assert int(size, 16) == len(rest) - 2
    assert rest.endswith(b"\n\n\r\n")
