"""plan, without a cluster: every rule with field, value, reason and way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.models import GB, LLAMA, PaperHub
from tests.support.plans import compiling, hardware, hub_of, planned, problems
from trainyard.errors import NotFound
from trainyard.neuron.engines import engine


def test_a_good_request_becomes_a_plan_with_chips_memory_and_places(tmp_path: Path) -> None:
    found = planned(tmp_path)
    assert (found.chips, found.lnc, found.weight_bytes) == (2, 2, 16 * GB)
    assert found.memory["weights"] == 2 * GB
    assert found.memory["hbm"] == 24 * GB
    # 2 (K, V) x 32 layers x 1 KV head a core x 128 x 2 bytes x 8 sequences x 4096 tokens
    assert found.memory["kv_cache"] == 2 * 32 * 1 * 128 * 2 * 8 * 4096
    assert found.memory["free"] == 24 * GB - 2 * GB - found.memory["kv_cache"] - found.memory["overhead"]
    assert found.model_manifest == f"models/meta--llama/{found.revision}/manifest.json"
    assert found.bundle_manifest == f"bundles/{found.fingerprint}/manifest.json"
    assert "us-east-2" in found.image


def test_tp_that_the_instance_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    problem = problems(tmp_path, hardware=hardware(8, "trn2.3xlarge"))["hardware.tensor_parallel"]
    assert problem.value == 8
    assert "4 logical cores (LNC=2)" in problem.rule
    assert "1, 2, 4" in problem.rule
    assert "logical cores, not chips" in problem.remedy


def test_tp_that_does_not_divide_the_heads_is_refused_with_those_that_do(tmp_path: Path) -> None:
    hub = hub_of(num_attention_heads=40, num_key_value_heads=8, hidden_size=5120)
    problem = problems(tmp_path, hub, engine="native", hardware=hardware(16))["hardware.tensor_parallel"]
    assert "40 attention heads cannot be divided by 16" in problem.rule
    assert problem.remedy == "Choose one of 1, 2, 4, 8."


def test_an_engine_that_pads_the_heads_takes_any_of_its_degrees(tmp_path: Path) -> None:
    hub = hub_of(num_attention_heads=40, num_key_value_heads=8, hidden_size=5120)
    assert planned(tmp_path, hub, hardware=hardware(16)).chips == 4


def test_a_part_of_a_node_that_is_no_power_of_two_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No engine offers such a TP today; the rule holds for the one that will.
    monkeypatch.setattr(
        type(engine("optimum")), "tensor_parallels", lambda self, cores: (1, 2, 4, 8, 12, 16, 32, 64)
    )
    hub = hub_of(num_attention_heads=48, num_key_value_heads=12, hidden_size=6144)
    problem = problems(tmp_path, hub, hardware=hardware(12))["hardware.tensor_parallel"]
    assert "3 chips of 16" in problem.rule
    assert "power of two" in problem.remedy


@pytest.mark.parametrize("kind", ["inf2.24xlarge", "inf2.48xlarge"])
def test_a_whole_node_of_inf2_may_have_any_number_of_chips(tmp_path: Path, kind: str) -> None:
    assert planned(tmp_path, hardware=hardware(8, kind)).chips == 4


def test_a_batch_of_one_is_refused(tmp_path: Path) -> None:
    problem = problems(tmp_path, compile=compiling(batch_size=1))["compile.batch_size"]
    assert problem.value == 1
    assert "continuous batching" in problem.rule


def test_a_sequence_beyond_the_models_positions_is_refused(tmp_path: Path) -> None:
    problem = problems(tmp_path, compile=compiling(sequence_length=8193))["compile.sequence_length"]
    assert problem.value == 8193
    assert problem.remedy == "Use at most 8192."


def test_a_model_that_cannot_fit_is_refused_with_the_numbers_and_a_tp_that_fits(tmp_path: Path) -> None:
    hub = hub_of(140 * GB, num_attention_heads=64, num_hidden_layers=80, hidden_size=8192)
    serving = {"memory": "512Gi"}
    found = problems(tmp_path, hub, hardware=hardware(4), compile=compiling(memory="512Gi"))
    problem = found["hardware.tensor_parallel"]
    assert "has 24.0 GB" in problem.rule
    assert "35.0 GB of weights" in problem.rule
    # 80 layers x 2 KV heads a core: 2 x 80 x 2 x 128 x 2 bytes x 8 x 4096
    assert "2.7 GB of KV cache" in problem.rule
    assert problem.remedy == "TP 8 fits on trn2.48xlarge."
    fits = planned(tmp_path, hub, hardware=hardware(8), compile=compiling(memory="512Gi"), serving=serving)
    assert fits.memory["free"] > 0


def test_a_model_that_no_tp_can_hold_is_refused_with_what_else_to_change(tmp_path: Path) -> None:
    hub = hub_of(140 * GB, num_attention_heads=64, num_hidden_layers=80, hidden_size=8192)
    found = problems(tmp_path, hub, hardware=hardware(4, "trn2.3xlarge"), compile=compiling(memory="512Gi"))
    assert "trn2.48xlarge does, at TP 8" in found["hardware.tensor_parallel"].remedy


def test_kv_heads_fewer_than_cores_are_copied_so_more_tp_saves_none_of_the_cache(tmp_path: Path) -> None:
    hub = hub_of(num_key_value_heads=2)
    narrow = planned(tmp_path, hub, hardware=hardware(2)).memory["kv_cache"]
    wide = planned(tmp_path, hub, hardware=hardware(8)).memory["kv_cache"]
    assert narrow == wide


def test_host_memory_below_twice_the_weights_is_refused_with_the_amount_to_ask_for(tmp_path: Path) -> None:
    problem = problems(tmp_path, compile=compiling(memory="16Gi"))["compile.memory"]
    assert "16.0 GB" in problem.rule
    assert "at least 30Gi" in problem.remedy
    planned(tmp_path, compile=compiling(memory="30Gi"))


@pytest.mark.parametrize(
    ("config", "field", "word"),
    [
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map", "code"),
        ({"auto_map": "modeling.Model"}, "auto_map", "code"),
        ({"auto_map": 5}, "auto_map", "code"),
        ({"model_type": "mamba"}, "model.config.model_type", "no such architecture"),
        ({"model_type": ["llama"]}, "model.config.model_type", "no such architecture"),
        ({"torch_dtype": "float8_e4m3fn"}, "model.config.torch_dtype", "does not take this dtype"),
        ({"num_attention_heads": 0}, "model.config.num_attention_heads", "positive whole number"),
        ({"num_attention_heads": None}, "model.config.num_attention_heads", "positive whole number"),
        ({"num_hidden_layers": True}, "model.config.num_hidden_layers", "positive whole number"),
        ({"hidden_size": "big"}, "model.config.hidden_size", "positive whole number"),
        ({"vocab_size": 1.5}, "model.config.vocab_size", "positive whole number"),
        ({"head_dim": 0}, "model.config.head_dim", "positive whole number"),
        ({"rope_theta": float("nan")}, "model.config", "JSON"),
        ({"rope_theta": float("inf")}, "model.config", "JSON"),
        ({"_name": "\ud800"}, "model.config", "JSON"),
    ],
)
def test_a_model_config_that_cannot_be_served_is_refused(
    tmp_path: Path, config: dict[str, Any], field: str, word: str
) -> None:
    found = problems(tmp_path, PaperHub({**LLAMA, **config}))
    problem = next(problem for name, problem in found.items() if field in name)
    assert word in problem.rule


@pytest.mark.parametrize("key", ["head_dim", "num_key_value_heads", "max_position_embeddings", "text_config"])
def test_a_null_in_a_model_config_means_its_default(tmp_path: Path, key: str) -> None:
    config = {**LLAMA, key: None}
    left_out = {name: value for name, value in LLAMA.items() if name != key}
    assert planned(tmp_path, PaperHub(config)).memory == planned(tmp_path, PaperHub(left_out)).memory


@pytest.mark.parametrize("architectures", [None, [], "LlamaForCausalLM", {"a": 1}, 7])
def test_the_field_architectures_may_be_anything(tmp_path: Path, architectures: Any) -> None:
    planned(tmp_path, PaperHub({**LLAMA, "architectures": architectures}))


def test_the_text_part_of_a_multimodal_config_counts(tmp_path: Path) -> None:
    inner = {**LLAMA, "model_type": "llama4_text"}
    config = {
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "text_config": inner,
    }
    assert planned(tmp_path, PaperHub(config)).memory == planned(tmp_path).memory


@pytest.mark.parametrize("kind", ["p5.48xlarge", "trn9.48xlarge", "m7i.large"])
def test_an_instance_type_without_neuron_is_refused_with_those_that_have_it(
    tmp_path: Path, kind: str
) -> None:
    problem = problems(tmp_path, hardware=hardware(2, kind))["hardware.instance_type"]
    assert problem.value == kind
    assert "trn2.48xlarge" in problem.remedy


def test_an_instance_family_that_the_engine_does_not_run_on_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(engine("optimum")), "families", frozenset({"trn1"}))
    assert "does not run on trn2" in problems(tmp_path)["hardware.instance_type"].rule


def test_an_unknown_engine_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    problem = problems(tmp_path, engine="tensorrt")["engine"]
    assert "optimum" in problem.remedy


@pytest.mark.parametrize(
    "name", ["modeling.py", "weights.bin", "../evil.json", "a/../../b.json", "/etc/x.json"]
)
def test_code_pickles_and_paths_that_climb_are_refused_before_a_pod_exists(tmp_path: Path, name: str) -> None:
    assert "file" in problems(tmp_path, PaperHub(others=(name,)))


def test_a_repository_without_safetensors_is_refused(tmp_path: Path) -> None:
    assert "repository" in problems(tmp_path, PaperHub(shards={}))


def test_weights_of_another_form_are_not_counted(tmp_path: Path) -> None:
    hub = PaperHub(shards={"model.safetensors": 16 * GB, "original/consolidated.safetensors": 16 * GB})
    found = planned(tmp_path, hub)
    assert found.weight_bytes == 16 * GB
    assert list(found.fingerprint_inputs["weights"]) == ["model.safetensors"]


def test_several_broken_rules_are_told_at_once(tmp_path: Path) -> None:
    hub = hub_of(torch_dtype="float32", model_type="mamba", quantization_config={"quant_method": "awq"})
    found = problems(tmp_path, hub, compile=compiling(batch_size=1, sequence_length=9000, memory="1Gi"))
    assert set(found) == {
        "model.config.model_type",
        "model.config.quantization_config",
        "compile.batch_size",
        "compile.sequence_length",
        "compile.memory",
    }


def test_a_revision_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such revision"):
        planned(tmp_path, model={"repo": "meta/llama", "revision": "v9"})
