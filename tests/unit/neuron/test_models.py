"""Facts from config.json: other architectures, quantized forms, and configs that nobody vouches for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.published import REPOS, config_of
from trainyard.errors import Refused
from trainyard.neuron import parameters
from trainyard.neuron.model_numbers import MOST
from trainyard.neuron.models import ModelFacts, Weights, read_facts, weights_of_index

SMALL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "model_type": "llama",
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "vocab_size": 1000,
}


def facts(weights: Weights | int | None = 10**6, **changes: Any) -> ModelFacts:
    return read_facts({**SMALL, **changes}, weights)


def test_what_a_config_leaves_out_is_what_transformers_takes() -> None:
    found = facts(num_key_value_heads=None)
    assert (found.kv_heads, found.head_dim, found.max_positions, found.dtype) == (8, 8, 4096, "bfloat16")


@pytest.mark.parametrize(
    ("key", "value"), [("torch_dtype", "float16"), ("dtype", "float16"), ("torch_dtype", "torch.float16")]
)
def test_the_dtype_is_read_in_every_spelling(key: str, value: str) -> None:
    assert facts(**{key: value}).dtype == "float16"


def test_weights_say_their_bytes_and_how_that_is_known() -> None:
    assert facts(Weights(10**9, {"BF16": 5 * 10**8})).weights_from == "headers"
    assert facts(10**9).weights_from == "index"
    counted = facts(Weights.counted({"BF16": 3000, "F32": 10}))
    assert (counted.weight_bytes, counted.parameters) == (6040, 3010)


def test_a_dtype_of_unknown_size_is_refused() -> None:
    with pytest.raises(Refused, match="no such dtype"):
        Weights.counted({"F3": 10})


@pytest.mark.parametrize(
    ("section", "form"),
    [
        (None, None),
        ({}, None),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gguf"}, "gguf"),
        ({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}, "fp8_e4m3"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "fp8_e5m2"),
        ({"quant_method": "fbgemm_fp8"}, "fp8_e4m3"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8_e4m3"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "exl3"}, "exl3"),
        ({"bits": 4}, "unknown"),
        ("awq", "awq"),
    ],
)
def test_every_published_form_of_quantization_has_one_name(section: Any, form: str | None) -> None:
    assert facts(quantization_config=section).quantization == form


@pytest.mark.parametrize(
    ("bits", "kind", "form"),
    [(8, "float", "fp8_e4m3"), (8, "int", "int8"), (4, "int", "int4"), (3, "x", "compressed-tensors")],
)
def test_compressed_tensors_are_named_after_their_weights(bits: int, kind: str, form: str) -> None:
    groups = {"group_0": {"weights": {"num_bits": bits, "type": kind}, "targets": ["Linear"]}}
    section = {"quant_method": "compressed-tensors", "config_groups": groups}
    assert facts(quantization_config=section).quantization == form


def test_packed_numbers_are_no_parameters() -> None:
    # AWQ packs eight parameters in an I32: the config knows how many there are.
    packed = Weights(50_000, {"I32": 8000, "F16": 9000})
    found = facts(packed, quantization_config={"quant_method": "awq"})
    assert found.parameters == parameters.count(SMALL).total
    assert found.weight_bytes == 50_000


def test_remote_code_is_refused_whatever_else_holds() -> None:
    with pytest.raises(Refused, match="never trusts remote code"):
        facts(auto_map={"AutoModel": "modeling_x.X"})


@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, [], MOST + 1, 10**400])
def test_a_number_that_is_none_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(Refused) as caught:
        facts(**{name: value})
    assert caught.value.problems[0].field == f"model.config.{name}"
    assert len(str(caught.value)) < 1000


def test_the_text_part_of_a_multimodal_model_is_what_counts() -> None:
    text = {key: value for key, value in SMALL.items() if key != "architectures"}
    config = {"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3"}
    found = read_facts(
        {**config, "text_config": {**text, "model_type": "mistral"}, "vision_config": {"hidden_size": 8}}, 10
    )
    assert (found.model_type, found.layers, found.multimodal) == ("mistral", 4, True)
    assert found.architecture == "Mistral3ForConditionalGeneration"
    with pytest.raises(Refused, match=r"model\.config\.text_config\.vocab_size"):
        read_facts({**config, "text_config": {**text, "vocab_size": 0}}, 10)


QWEN3_MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "vocab_size": 151936,
}
GPT_OSS = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "num_hidden_layers": 24,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 2880,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "attention_bias": True,
    "vocab_size": 201088,
}


@pytest.mark.parametrize(
    ("config", "total"),
    [(QWEN3_MOE, 30_532_122_624), (GPT_OSS, 20_914_757_184)],
    ids=["Qwen3-30B-A3B", "gpt-oss-20b"],
)
def test_other_mixtures_are_counted_exactly_too(config: dict[str, Any], total: int) -> None:
    assert parameters.count(config).total == total


def test_layers_without_experts_are_left_out_of_the_mixture() -> None:
    assert parameters.mixture(QWEN3_MOE).layers == 48
    assert parameters.mixture({**QWEN3_MOE, "mlp_only_layers": [0, 47, 99, "x"]}).layers == 46
    assert parameters.mixture({**QWEN3_MOE, "decoder_sparse_step": 5}).layers == 9
    assert parameters.mixture({**QWEN3_MOE, "num_experts": 0}).layers == 0


@pytest.mark.parametrize(
    ("index", "total"),
    [
        ({"metadata": {"total_size": 1000}}, 1000),
        ({"metadata": {"total_size": 1000.0}}, 1000),
        ({"metadata": {"total_size": "1000"}}, None),
        ({"metadata": {"total_size": float("nan")}}, None),
        ({"metadata": {"total_size": 10**30}}, None),
        ({"metadata": {"total_size": True}}, None),
        ({"metadata": []}, None),
        ({}, None),
    ],
)
def test_an_index_is_believed_only_where_it_says_a_size(index: dict[str, Any], total: int | None) -> None:
    found = weights_of_index(index)
    assert (found.total if found else None) == total


def test_what_is_nested_without_end_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(5000):
        nested = {"a": nested}
    with pytest.raises(Refused, match="nested"):
        facts(rope_scaling=nested)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted({key for repo in REPOS for key in config_of(repo)} | {"text_config", "quantization_config"})
PARTS = ("text_config", "ffn_config", "attn_config", "vision_config")
INNER = sorted({key for repo in REPOS for part in PARTS for key in config_of(repo).get(part, {})})
CONFIGS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), JSON)


def read(config: dict[str, Any], weights: Weights | None) -> None:
    """ModelFacts with numbers that fit a plan, or Refused; nothing else."""
    try:
        found = read_facts(config, weights)
    except Refused as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert all(problem.field and problem.remedy for problem in refusal.problems)
        assert len(str(refusal)) < 3000
        return
    for number in (found.layers, found.heads, found.kv_heads, found.head_dim, found.hidden):
        assert 1 <= number <= MOST
    assert found.weight_bytes >= 0
    assert found.kv_bytes_per_token_on(64) > 0
    assert 0 <= found.kept_parameters <= found.parameters


@given(CONFIGS, st.none() | st.builds(Weights, st.integers()))
def test_any_config_is_read_or_refused(config: dict[str, Any], weights: Weights | None) -> None:
    read(config, weights)


@given(
    st.sampled_from(REPOS),
    st.dictionaries(st.sampled_from(KEYS), JSON | st.integers(-1, 300), max_size=3),
    st.dictionaries(st.sampled_from(INNER), JSON | st.integers(-1, 300), max_size=3),
)
def test_a_published_config_that_somebody_changed_is_read_or_refused(
    repo: str, changes: dict[str, Any], inner: dict[str, Any]
) -> None:
    config = {**config_of(repo), **changes}
    for part in PARTS:
        if isinstance(config.get(part), dict):
            config[part] = {**config[part], **inner}
    config.pop("auto_map", None)
    read(config, None)
