"""Published models: the facts and the numbers of parameters that follow from their configs."""

from __future__ import annotations

import pytest

from tests.support.published import REPOS, config_of, facts_of, total_size, weights_of
from trainyard.neuron import parameters
from trainyard.neuron.models import ModelFacts, read_facts

DEEPSEEK = "deepseek-ai/DeepSeek-V3"
# FP8 weights come with a scale for each block of 128 x 128: numbers, but no parameters of the model.
SCALES = {DEEPSEEK: 41_540_496}


@pytest.mark.parametrize("repo", REPOS)
def test_the_config_alone_gives_the_published_number_of_parameters(repo: str) -> None:
    published = sum(weights_of(repo).parameters.values()) - SCALES.get(repo, 0)
    assert parameters.count(config_of(repo)).total == published


@pytest.mark.parametrize("repo", REPOS)
def test_the_numbers_by_dtype_give_the_bytes_of_the_index(repo: str) -> None:
    assert weights_of(repo).total == total_size(repo)


@pytest.mark.parametrize("repo", [repo for repo in REPOS if repo not in SCALES])
def test_without_any_weights_the_bytes_are_reckoned_from_the_config(repo: str) -> None:
    reckoned = read_facts(config_of(repo), None)
    assert reckoned.weight_bytes == total_size(repo)
    assert reckoned.weights_from == "config"


def test_reckoned_bytes_of_a_quantized_model_leave_the_scales_out() -> None:
    config = config_of(DEEPSEEK)
    del config["auto_map"]
    assert 0.99 < read_facts(config, None).weight_bytes / total_size(DEEPSEEK) < 1


@pytest.mark.parametrize(
    ("repo", "model_type", "layers", "heads", "kv_heads", "head_dim", "experts", "per_token"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct", "llama", 80, 64, 8, 128, 0, 0),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama4_text", 48, 40, 8, 128, 16, 1),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", "llama4_text", 48, 40, 8, 128, 128, 1),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", "mixtral", 56, 48, 8, 128, 8, 2),
        ("databricks/dbrx-instruct", "dbrx", 40, 48, 8, 128, 16, 4),
        ("Qwen/Qwen3-4B", "qwen3", 36, 32, 8, 128, 0, 0),
        (DEEPSEEK, "deepseek_v3", 61, 128, 128, 192, 256, 8),
    ],
)
def test_facts_are_read_from_each_architecture_in_its_own_words(
    repo: str,
    model_type: str,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    experts: int,
    per_token: int,
) -> None:
    facts = facts_of(repo)
    assert (facts.model_type, facts.layers, facts.heads) == (model_type, layers, heads)
    assert (facts.kv_heads, facts.head_dim) == (kv_heads, head_dim)
    assert (facts.experts, facts.experts_per_token) == (experts, per_token)
    assert facts.dtype == "bfloat16"
    assert facts.multimodal == (model_type == "llama4_text")


def test_every_second_layer_of_maverick_has_experts_and_every_one_of_scout() -> None:
    maverick = parameters.mixture(config_of("meta-llama/Llama-4-Maverick-17B-128E-Instruct"))
    scout = parameters.mixture(config_of("meta-llama/Llama-4-Scout-17B-16E-Instruct"))
    assert (maverick.layers, scout.layers) == (24, 48)


def test_deepseek_has_dense_layers_first_shared_experts_and_a_draft_layer() -> None:
    config = config_of(DEEPSEEK)
    found = parameters.count(config)
    expert = 3 * 7168 * 2048
    assert parameters.mixture(config).layers == 61 - 3
    assert found.experts == 58 * 256 * expert
    assert found.shared_experts == 58 * expert
    assert found.mlp == 3 * 3 * 7168 * 18432
    assert found.draft > 257 * expert
    # Without the draft layer it is the 671B that the model card speaks of.
    assert round((found.total - found.draft) / 1e9) == 671


def test_tied_embeddings_are_counted_once() -> None:
    config = config_of("Qwen/Qwen3-4B")
    assert parameters.count(config).lm_head == 0
    assert parameters.count({**config, "tie_word_embeddings": False}).lm_head == 151936 * 2560


def test_a_token_leaves_keys_and_values_of_all_layers() -> None:
    facts = facts_of("meta-llama/Llama-3.1-8B-Instruct")
    assert facts.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2 == 131_072
    # 8 KV heads: shared out over up to 8 cores, copied beyond.
    assert [facts.kv_bytes_per_token_on(tp) for tp in (1, 2, 8, 16, 64)] == [
        131_072, 65_536, 16_384, 16_384, 16_384,
    ]  # fmt: skip


def test_a_core_has_whole_kv_heads() -> None:
    facts = facts_of("meta-llama/Llama-3.1-8B-Instruct")
    assert facts.kv_bytes_per_token_on(3) == 3 * 16_384


def test_a_latent_is_cached_once_and_copied_to_every_core() -> None:
    facts = facts_of(DEEPSEEK)
    assert facts.kv_bytes_per_token == 61 * (512 + 64) * 2 == 70_272
    assert facts.kv_bytes_per_token_on(64) == 70_272


def test_weights_can_be_reckoned_in_other_forms() -> None:
    facts = facts_of("meta-llama/Llama-3.1-8B-Instruct")
    assert facts.bytes_as("bfloat16") == facts.weight_bytes == 16_060_522_496
    assert facts.bytes_as("float32") == 2 * facts.weight_bytes
    # Embedding and head (128256 x 4096 each) and norms stay at 16 bit.
    kept = 2 * 128_256 * 4096 + 65 * 4096
    assert facts.bytes_as("int8") == facts.bytes_as("fp8_e4m3") == 8_030_261_248 + kept
    with pytest.raises(ValueError, match="awq"):
        facts.bytes_as("awq")


def test_a_quantized_model_is_twice_as_large_in_16_bit() -> None:
    facts = facts_of(DEEPSEEK)
    assert facts.quantization == "fp8_e4m3"
    assert facts.bytes_as("fp8_e4m3") == facts.weight_bytes == 688_574_839_360
    assert facts.bytes_as("bfloat16") == 2 * 684_489_845_504


def test_whoever_gates_a_model_is_believed() -> None:
    gated: dict[str, ModelFacts] = {repo: facts_of(repo) for repo in REPOS}
    assert gated["meta-llama/Llama-3.1-8B-Instruct"].gated
    assert not gated["Qwen/Qwen3-8B"].gated
