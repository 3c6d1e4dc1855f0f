"""Every rule, kept and broken: what it says, with which numbers, and what to do instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.neuron.plain import ASK, FACTS, GB, GIB, TRN2, facts, judged, plain, rule_of
from trainyard.neuron.engines import engines
from trainyard.neuron.instances import INSTANCES, instance
from trainyard.neuron.models import ModelFacts
from trainyard.neuron.rule import Ask
from trainyard.neuron.rules import preflight

NAMES = [
    "family", "architecture", "dtype", "quantization", "images", "licence", "lnc", "bundle", "cores", "heads",
    "chips", "batch", "sequence", "fit", "compile_memory", "serving_memory", "cpus",
]  # fmt: skip


def test_a_good_ask_keeps_every_rule_and_each_says_why() -> None:
    result = judged()
    assert [rule.name for rule in result.rules] == NAMES
    assert result.passed
    assert result.problems == ()
    assert all(rule.passed and rule.words for rule in result.rules)
    assert (result.lnc, result.chips, result.holds, result.loaded) == (2, 2, "weights", "bfloat16")
    assert (result.host.compiling, result.host.serving) == (32 * GB, 16 * GB)


def broken(name: str, result: Any) -> Any:
    rule = rule_of(result, name)
    assert not rule.passed
    assert rule.problem is not None
    assert rule.problem.remedy.endswith(".")
    assert rule.words == rule.problem.rule
    return rule.problem


def test_an_engine_that_does_not_run_on_the_family() -> None:
    problem = broken("family", judged(engine=plain(families=frozenset({"inf2"}))))
    assert (problem.field, problem.value) == ("hardware.instance_type", "trn2.48xlarge")
    assert problem.rule == "engine plain does not run on trn2"
    assert "inf2" in problem.remedy


def test_a_nodepool_of_other_chips() -> None:
    problem = broken("nodepool", judged(nodepool="neuron-inf2"))
    assert (problem.field, problem.value) == ("hardware.nodepool", "neuron-inf2")
    assert "Use neuron-trn2" in problem.remedy
    assert rule_of(judged(nodepool="neuron-trn2"), "nodepool").passed
    assert "of your own" in rule_of(judged(nodepool="mine"), "nodepool").words


def test_a_novel_architecture() -> None:
    problem = broken("architecture", judged(facts(model_type="mamba")))
    assert (problem.field, problem.value) == ("model.config.model_type", "mamba")
    assert "llama" in problem.remedy


def test_a_dtype_that_the_engine_does_not_take() -> None:
    problem = broken("dtype", judged(facts(dtype="float32")))
    assert (problem.field, problem.value) == ("model.config.torch_dtype", "float32")
    assert "bfloat16, float16" in problem.remedy


def test_images_are_not_served_by_a_text_engine_which_is_said_but_allowed() -> None:
    rule = rule_of(judged(facts(multimodal=True)), "images")
    assert rule.passed
    assert "text part only: requests with images are refused" in rule.words
    seeing = plain(images_too=frozenset({"llama"}))
    assert "with images" in rule_of(judged(facts(multimodal=True), seeing), "images").words


def test_pictures_are_shown_only_to_a_model_that_the_engine_serves_with_them() -> None:
    seeing = plain(images_too=frozenset({"llama"}))
    assert rule_of(judged(facts(multimodal=True), seeing, shows_images=True), "images").passed
    for model, engine in ((facts(), seeing), (facts(multimodal=True), plain())):
        problem = broken("images", judged(model, engine, shows_images=True))
        assert problem.field == "rollout.load.images"
    assert "text only" in broken("images", judged(facts(), seeing, shows_images=True)).rule


def test_the_longest_request_of_the_load_test_must_fit_with_its_template() -> None:
    words = rule_of(judged(longest_request=4048), "load").words
    assert words == "4096 of 4096 tokens in the longest request of the load test"
    problem = broken("load", judged(longest_request=4049))
    assert (problem.field, problem.value) == ("rollout.load", 4049)
    assert "needs 4097 tokens" in problem.rule


def test_a_gated_model_needs_a_token() -> None:
    problem = broken("licence", judged(facts(gated=True)))
    assert problem.field == "model.token_secret"
    assert rule_of(judged(facts(gated=True), has_token=True), "licence").passed


def test_an_lnc_that_the_chip_does_not_have() -> None:
    problem = broken("lnc", judged(kind=instance("trn1.32xlarge"), lnc=2))
    assert (problem.field, problem.value) == ("hardware.lnc", 2)
    assert "trainium1" in problem.rule


def test_an_lnc_that_the_engine_does_not_support() -> None:
    problem = broken("lnc", judged(lnc=1))
    assert "engine plain does not support LNC=1 on trn2" in problem.rule
    both = plain(lncs_by_target={"trn1": (1,), "trn2": (2, 1)})
    result = judged(engine=both, lnc=1)
    assert result.passed
    assert (result.lnc, result.chips) == (1, 1)
    assert "128 physical cores are 128 logical" in rule_of(result, "lnc").words


def test_a_compiled_set_that_holds_what_the_engine_cannot_make() -> None:
    problem = broken("bundle", judged(holds="graph"))
    assert (problem.field, problem.value) == ("compile.bundle.holds", "graph")
    assert "finds no weights beside it" in problem.rule
    both = plain(holds=("weights", "graph"))
    assert judged(engine=both, holds="graph").holds == "graph"
    assert judged(engine=both).holds == "weights"


def test_more_cores_than_the_instance_has() -> None:
    problem = broken("cores", judged(kind=instance("trn2.3xlarge")))
    assert (problem.field, problem.value) == ("hardware.tensor_parallel", 8)
    assert problem.rule == "trn2.3xlarge has 4 logical cores (LNC=2); engine plain takes TP 1, 2, 4 there"
    assert "not chips" in problem.remedy


def test_a_degree_between_those_that_the_engine_takes() -> None:
    assert "1, 2, 4, 8, 16, 32, 64" in broken("cores", judged(tensor_parallel=6)).rule


def test_heads_that_cannot_be_divided() -> None:
    problem = broken("heads", judged(facts(heads=40, hidden=5120), tensor_parallel=16))
    assert problem.rule == "the model's 40 attention heads cannot be divided by 16"
    assert problem.remedy == "Choose one of 1, 2, 4, 8."


def test_heads_that_the_engine_pads_may_be_any_number_and_the_waste_is_said() -> None:
    rule = rule_of(judged(facts(heads=40, hidden=5120), plain(pads_heads=True), tensor_parallel=16), "heads")
    assert rule.passed
    assert "pads them to 48, so 16 % of the attention computes nothing" in rule.words
    assert "8 KV heads are copied to 16 cores" in rule.words


def test_kv_heads_that_do_not_come_out_even_are_refused_or_copied() -> None:
    odd = facts(heads=48, kv_heads=6)
    problem = broken("heads", judged(odd, tensor_parallel=4))
    assert (
        problem.rule == "the model's 48 attention heads cannot be divided by 4 together with its 6 KV heads"
    )
    assert problem.remedy == "Choose one of 1, 2."
    rule = rule_of(judged(odd, plain(pads_heads=True), tensor_parallel=4), "heads")
    assert "6 KV heads become 12 a core, one for each query head" in rule.words


def test_part_of_a_node_in_another_number_of_chips_than_a_power_of_two() -> None:
    odd = plain(degrees=(1, 2, 4, 8, 12, 64))
    problem = broken("chips", judged(facts(heads=48, kv_heads=12), odd, tensor_parallel=12))
    assert "needs 3 chips of 16" in problem.rule
    assert "power of two" in problem.remedy


@pytest.mark.parametrize(("kind", "tp", "chips"), [("inf2.24xlarge", 12, 6), ("inf2.48xlarge", 24, 12)])
def test_a_whole_node_may_have_any_number_of_chips(kind: str, tp: int, chips: int) -> None:
    result = judged(facts(heads=48), plain(degrees=(tp,)), instance(kind), tensor_parallel=tp)
    assert rule_of(result, "chips").words == f"all {chips} chip(s) of {kind}"


def test_part_of_a_node_is_told_what_it_needs() -> None:
    words = rule_of(judged(), "chips").words
    assert "2 of 16 chips" in words
    assert "scheduler extension" in words


def test_a_batch_below_what_continuous_batching_needs() -> None:
    problem = broken("batch", judged(batch_size=1))
    assert (problem.field, problem.value) == ("compile.batch_size", 1)
    assert judged(engine=plain(min_batch=1), batch_size=1).passed


def test_a_sequence_beyond_the_models_positions() -> None:
    problem = broken("sequence", judged(sequence_length=8193))
    assert problem.remedy == "Use at most 8192."


def test_a_model_that_does_not_fit_is_refused_with_the_numbers_and_the_next_degree_that_does() -> None:
    big = facts(weight_bytes=140 * GB, heads=64, layers=80, hidden=8192)
    problem = broken("fit", judged(big, tensor_parallel=4, compile_memory_bytes=None))
    assert (
        "has 24.0 GB, needed are 35.0 GB of weights + 2.7 GB of KV cache + 2.4 GB of overhead" in problem.rule
    )
    assert "TP 4: 96.0 GB for 140.0 GB of bfloat16 weights" in problem.rule
    assert problem.remedy == "TP 8 fits on trn2.48xlarge."


def test_a_model_that_no_degree_fits_is_sent_to_an_instance_that_holds_it() -> None:
    big = facts(weight_bytes=140 * GB, heads=64, layers=80, hidden=8192)
    problem = broken("fit", judged(big, kind=instance("trn2.3xlarge"), tensor_parallel=4))
    assert problem.remedy == (
        "No TP of trn2.3xlarge holds it at batch 8 and sequence 4096: trn2.48xlarge does, at TP 8."
    )


def test_a_model_that_nothing_holds_is_told_to_ask_for_less() -> None:
    huge = facts(weight_bytes=4000 * GB, heads=64)
    assert "smaller batch or sequence" in broken("fit", judged(huge, tensor_parallel=64)).remedy


def test_sharding_needs_the_weights_twice_in_host_memory() -> None:
    problem = broken("compile_memory", judged(compile_memory_bytes=16 * GIB))
    assert problem.field == "compile.memory"
    assert problem.value == "17.2 GB"
    assert "(16.0 GB) twice" in problem.rule
    assert "at least 30Gi" in problem.remedy
    assert judged(compile_memory_bytes=30 * GIB).passed


def test_a_server_reads_the_weights_through_host_memory() -> None:
    problem = broken("serving_memory", judged(serve_memory_bytes=8 * GIB))
    assert problem.field == "serving.memory"
    assert "(16.0 GB) once" in problem.rule
    assert "at least 15Gi" in problem.remedy


def test_a_pod_cannot_have_more_host_memory_than_the_node_has_for_pods() -> None:
    problem = broken("serving_memory", judged(kind=instance("trn2.3xlarge"), tensor_parallel=4,
                                              serve_memory_bytes=120 * GIB))  # fmt: skip
    assert "116Gi of its 128Gi for pods" in problem.rule
    assert problem.remedy == "Ask for at most 116Gi."


def test_a_model_that_the_host_cannot_shard_is_sent_to_one_that_can() -> None:
    result = judged(kind=instance("inf2.xlarge"), tensor_parallel=2, compile_memory_bytes=None)
    problem = broken("compile_memory", result)
    assert "twice (32.0 GB), and inf2.xlarge has 13Gi of its 16Gi for pods" in problem.rule
    assert "inf2.8xlarge (128Gi)" in problem.remedy


def test_memory_that_is_not_asked_for_is_what_is_needed() -> None:
    rule = rule_of(judged(compile_memory_bytes=None), "compile_memory")
    assert rule.passed
    assert "ask for 30Gi" in rule.words


def test_pods_that_share_a_nodes_chips_but_not_its_memory_are_told_so() -> None:
    words = rule_of(judged(serve_memory_bytes=900 * GIB), "serving_memory").words
    assert "Its chips are enough for 8 such pods, its memory for 2" in words


def test_more_cpus_than_the_instance_has_for_pods() -> None:
    problem = broken("cpus", judged(kind=instance("inf2.8xlarge"), tensor_parallel=2, serve_cpus=32))
    assert (problem.field, problem.value) == ("serving.cpu", 32)
    assert "at most 31" in problem.remedy


def test_all_broken_rules_are_told_at_once() -> None:
    result = judged(facts(model_type="mamba", dtype="float32"), batch_size=1, sequence_length=9000)
    assert [rule.name for rule in result.rules if not rule.passed] == [
        "architecture",
        "dtype",
        "batch",
        "sequence",
    ]
    assert len(result.problems) == 4


@settings(max_examples=200)
@given(
    model=st.builds(
        ModelFacts,
        model_type=st.sampled_from(["llama", "", "mamba", "llama4_text"]),
        architecture=st.just(""),
        layers=st.integers(1, 500),
        heads=st.integers(1, 500),
        kv_heads=st.integers(1, 500),
        head_dim=st.integers(1, 1024),
        hidden=st.integers(1, 100_000),
        vocabulary=st.integers(1, 10**6),
        max_positions=st.integers(1, 10**8),
        dtype=st.sampled_from(["bfloat16", "float16", "float32"]),
        weight_bytes=st.integers(0, 1 << 60),
        parameters=st.integers(0, 1 << 60),
        experts=st.integers(0, 512),
        quantization=st.sampled_from([None, "fp8_e4m3", "awq", "int4", "unknown"]),
        multimodal=st.booleans(),
        gated=st.booleans(),
        latent=st.integers(0, 2000),
    ),
    ask=st.builds(
        Ask,
        tensor_parallel=st.integers(1, 128),
        batch_size=st.integers(1, 512),
        sequence_length=st.integers(64, 1 << 20),
        compile_memory_bytes=st.none() | st.integers(1, 1 << 44),
        serve_memory_bytes=st.none() | st.integers(1, 1 << 44),
        lnc=st.sampled_from([None, 1, 2]),
        holds=st.sampled_from([None, "graph", "weights"]),
        quantization=st.sampled_from([None, "fp8_e4m3", "int8"]),
        has_token=st.booleans(),
        compile_cpus=st.integers(0, 192),
    ),
    kind=st.sampled_from(sorted(INSTANCES)),
    name=st.sampled_from(sorted(engines())),
)
def test_no_rule_breaks_down_whatever_it_is_asked(model: ModelFacts, ask: Ask, kind: str, name: str) -> None:
    result = preflight(model, engines()[name], instance(kind), ask)
    assert result.passed == (not result.problems)
    assert all(rule.words for rule in result.rules)
    assert all((rule.problem is None) == rule.passed for rule in result.rules)
    assert all(problem.rule and problem.remedy for problem in result.problems)
    fit = rule_of(result, "fit")
    assert fit.passed == (result.memory.free >= 0)


def test_the_same_ask_gets_the_same_answer() -> None:
    assert preflight(FACTS, plain(), TRN2, ASK).rules == preflight(FACTS, plain(), TRN2, replace(ASK)).rules
