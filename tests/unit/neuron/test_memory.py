"""Weights and KV cache of a core, to the byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.published import facts_of
from tests.unit.neuron.plain import FACTS, GB, TRN2, facts
from trainyard.neuron.instances import INSTANCES, instance
from trainyard.neuron.memory import memory_of, size


def test_parts_of_a_core_add_up_to_its_memory() -> None:
    found = memory_of(FACTS, TRN2, 2, 8, 8, 4096)
    assert found.hbm == 24 * GB
    assert found.weights == 2 * GB
    # K and V, 32 layers, 1 head of 128 numbers of 2 bytes, 8 sequences of 4096 tokens.
    assert found.kv_cache == 2 * 32 * 1 * 128 * 2 * 8 * 4096
    assert found.overhead == 2_400_000_000
    assert found.free == found.hbm - found.weights - found.kv_cache - found.overhead
    assert found.as_dict()["free"] == found.free


def test_kv_heads_that_are_copied_cost_weights_too() -> None:
    # 8 KV heads on 32 cores: 24 copies of a K and a V projection of 4096 x 128 numbers, in each of 32 layers.
    found = memory_of(FACTS, TRN2, 2, 32, 8, 4096)
    assert found.copies == 32 * 24 * 2 * 4096 * 128 * 2 // 32
    assert found.weights == 16 * GB // 32 + found.copies
    assert found.kv_cache == memory_of(FACTS, TRN2, 2, 8, 8, 4096).kv_cache


def test_padded_query_heads_cost_weights() -> None:
    # 40 heads on 16 cores are 48, 8 KV heads are 16.
    found = memory_of(facts(heads=40, hidden=5120), TRN2, 2, 16, 8, 4096)
    assert found.copies == 32 * (8 + 8) * 2 * 5120 * 128 * 2 // 16


def test_heads_that_are_dealt_out_evenly_cost_nothing_more() -> None:
    assert memory_of(FACTS, TRN2, 2, 8, 8, 4096).copies == 0


def test_kv_heads_that_deal_out_in_no_way_become_one_for_each_query_head() -> None:
    # 8 KV heads on 12 cores: 32 query heads are 3 a core, and each has its own K and V.
    found = memory_of(FACTS, TRN2, 2, 12, 8, 4096)
    assert found.kv_cache == 2 * 32 * 3 * 128 * 2 * 8 * 4096
    assert found.copies == 32 * ((36 - 32) + (36 - 8)) * 2 * 4096 * 128 * 2 // 12


def test_a_latent_cache_lies_whole_on_every_core() -> None:
    deepseek = facts_of("deepseek-ai/DeepSeek-V3")
    one, many = (memory_of(deepseek, TRN2, 2, tp, 1, 4096) for tp in (1, 64))
    # 512 + 64 numbers a token and layer.
    assert one.kv_cache == many.kv_cache == 61 * 576 * 2 * 4096
    assert many.copies == 0


def test_weights_may_be_loaded_in_another_form_than_published() -> None:
    found = memory_of(FACTS, TRN2, 2, 8, 8, 4096, weight_bytes=8 * GB)
    assert found.weights == GB
    assert found.weights_total == 8 * GB


@given(
    tp=st.sampled_from([1, 2, 4, 8, 12, 16, 32, 64, 128]),
    heads=st.integers(1, 300),
    kv_heads=st.integers(1, 300),
    layers=st.integers(1, 200),
    weights=st.integers(0, 10**13),
    kind=st.sampled_from(sorted(INSTANCES)),
)
def test_no_weight_is_lost_between_the_cores(
    tp: int, heads: int, kv_heads: int, layers: int, weights: int, kind: str
) -> None:
    model = facts(heads=heads, kv_heads=kv_heads, layers=layers, weight_bytes=weights)
    found = memory_of(model, instance(kind), 1, tp, 4, 128)
    assert found.weights * tp >= weights
    assert found.copies >= 0
    assert found.kv_cache * tp >= model.kv_bytes_per_token * 4 * 128


@pytest.mark.parametrize(("count", "words"), [(0, "0.0 MB"), (2_500_000, "2.5 MB"), (384 * GB, "384.0 GB")])
def test_sizes_are_said_in_decimal_units(count: int, words: str) -> None:
    assert size(count) == words
