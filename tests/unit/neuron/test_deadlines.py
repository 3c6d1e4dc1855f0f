"""Deadlines learned from compiles of like models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.neuron.deadlines import (
    FLOOR_SECONDS,
    Sample,
    Shape,
    layers_of,
    learn_deadline,
    p95,
    samples_of,
)

LLAMA = Shape("optimum", "trn2", "llama", 32, 16_000_000_000, 8, 4 * 4096, "c0", "2.21")
CAP = 115


def good(seconds: float, **changes: Any) -> Sample:
    return Sample(replace(LLAMA, **changes), seconds, "good")


def cut(seconds: float, **changes: Any) -> Sample:
    return Sample(replace(LLAMA, **changes), seconds, "cut")


def test_too_few_like_compiles_leave_the_spec_in_charge() -> None:
    deadline = learn_deadline([good(900), good(950)], LLAMA, CAP)
    assert (deadline.seconds, deadline.learned) == (CAP * 60, False)
    assert "2 like compile(s) are known, 3 are needed" in deadline.why


def test_three_like_compiles_give_their_slowest_and_half_as_much_again() -> None:
    deadline = learn_deadline([good(900), good(1000), good(950)], LLAMA, CAP)
    assert (deadline.seconds, deadline.learned) == (1500, True)


def test_other_engines_targets_and_families_teach_nothing() -> None:
    others = [good(900, engine="nxdi"), good(900, target="trn1"), good(900, family="qwen3")] * 3
    assert not learn_deadline(others, LLAMA, CAP).learned


def test_a_model_of_twice_the_layers_gets_twice_the_time() -> None:
    deeper = replace(LLAMA, layers=64, configuration="c1")
    assert learn_deadline([good(900)] * 3, deeper, CAP).seconds == 2700


def test_more_weights_a_core_count_and_more_cores_take_them_away() -> None:
    seen = [good(1000, configuration="small")] * 3
    heavier = replace(LLAMA, weight_bytes=LLAMA.weight_bytes * 2)
    assert learn_deadline(seen, heavier, CAP).seconds == 3000
    assert learn_deadline(seen, replace(heavier, tensor_parallel=16), CAP).seconds == 1500


def test_a_model_too_unlike_in_size_teaches_nothing() -> None:
    tiny = [good(30, layers=2, weight_bytes=10_000_000, configuration="tiny")] * 5
    assert not learn_deadline(tiny, LLAMA, CAP).learned


def test_samples_of_another_compiler_version_are_given_more_room() -> None:
    seen = [good(1000, compiler="2.20")] * 3
    assert learn_deadline(seen, LLAMA, CAP).seconds == 2000


def test_a_short_compile_still_gets_the_floor() -> None:
    assert learn_deadline([good(20)] * 3, LLAMA, CAP).seconds == FLOOR_SECONDS


def test_a_compile_that_the_deadline_cut_off_gets_twice_that_and_twice_again_up_to_the_cap() -> None:
    known = [good(1000)] * 3
    seen = []
    for _ in range(4):
        deadline = learn_deadline(known, LLAMA, CAP)
        seen.append((deadline.seconds, deadline.learned))
        known.append(cut(deadline.seconds))
    assert seen == [(1500, True), (3000, True), (6000, True), (CAP * 60, False)]


def test_a_good_compile_of_the_same_configuration_forgets_that_it_was_cut_off() -> None:
    known = [good(1000)] * 3 + [cut(1500), good(1600)]
    assert learn_deadline(known, LLAMA, CAP).seconds == 2400


shapes = st.builds(
    Shape,
    engine=st.sampled_from(["optimum", "nxdi"]),
    target=st.sampled_from(["trn1", "trn2"]),
    family=st.sampled_from(["llama", "qwen3"]),
    layers=st.integers(1, 200),
    weight_bytes=st.integers(1, 10**13),
    tensor_parallel=st.sampled_from([1, 2, 8, 64]),
    tokens=st.integers(1, 10**7),
    configuration=st.sampled_from(["a", "b", "c"]),
    compiler=st.sampled_from(["2.20", "2.21"]),
)
samples = st.builds(Sample, shapes, st.floats(0.001, 1e6, allow_nan=False), st.sampled_from(["good", "cut"]))


@given(st.lists(samples, max_size=30), shapes, st.integers(1, 600), st.integers(1, 7200))
def test_never_above_the_cap_nor_below_the_floor(
    history: list[Sample], like: Shape, cap: int, floor: int
) -> None:
    deadline = learn_deadline(history, like, cap, floor)
    assert min(floor, cap * 60) <= deadline.seconds <= cap * 60
    assert deadline.learned == (deadline.seconds < cap * 60)
    assert deadline.why


@given(st.lists(samples, max_size=30), shapes, st.floats(1, 1e5))
def test_being_cut_off_never_shortens_what_comes_next(
    history: list[Sample], like: Shape, seconds: float
) -> None:
    before = learn_deadline(history, like, CAP)
    after = learn_deadline([*history, Sample(like, seconds, "cut")], like, CAP)
    assert after.seconds >= before.seconds


@given(st.lists(samples, max_size=10))
def test_samples_survive_their_document(history: list[Sample]) -> None:
    documents = [
        {"shape": sample.shape.to_json(), "seconds": sample.seconds, "outcome": sample.outcome}
        for sample in history
    ]
    assert samples_of(documents) == history


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=3,
)
odd = st.fixed_dictionaries(
    {},
    optional={
        "shape": json_values | st.fixed_dictionaries(dict.fromkeys(LLAMA.to_json(), json_values)),
        "seconds": json_values,
        "outcome": st.sampled_from(["good", "cut", "odd"]) | json_values,
    },
)


@settings(max_examples=50)
@given(st.lists(odd, max_size=2))
def test_whatever_the_history_holds_gives_a_deadline(documents: list[dict[str, Any]]) -> None:
    known = samples_of(documents)
    assert 0 < learn_deadline(known, LLAMA, CAP).seconds <= CAP * 60


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=100))
def test_p95_is_a_value_that_was_seen(values: list[float]) -> None:
    assert p95(values) in values
    assert sum(value <= p95(values) for value in values) >= 0.95 * len(values)


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        ({"num_hidden_layers": 32}, 32),
        ({"num_hidden_layers": 2, "text_config": {"num_hidden_layers": 48}}, 48),
        ({"n_layers": 40}, 40),
        ({"num_hidden_layers": True}, 1),
        ({}, 1),
    ],
)
def test_layers_are_those_of_the_text_part(config: dict[str, Any], layers: int) -> None:
    assert layers_of(config) == layers
