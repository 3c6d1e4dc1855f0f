"""NxD Inference's command lines, word by word, what a set must say of itself, and what proves its use."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.neuron.engines.builds import GRAPH, INF2, TRN2, evidence, serving
from trainyard.neuron.engines import engine
from trainyard.neuron.engines.base import Build

NXDI = engine("nxdi")
NEURON_CONFIG: dict[str, Any] = {
    "tp_degree": 64,
    "max_batch_size": 8,
    "seq_len": 4096,
    "logical_nc_config": 2,
    "is_continuous_batching": True,
    "save_sharded_checkpoint": True,
    "quantized": False,
}


def problems(neuron_config: Any, build: Build = TRN2) -> list[str]:
    text = json.dumps({"neuron_config": neuron_config}).encode()
    return NXDI.problems_of_bundle({"neuron_config.json": len(text)}, lambda path: text, build)


def test_the_compile_is_inference_demo_with_the_shapes_of_the_build() -> None:
    command = NXDI.compile_command(TRN2)
    assert " ".join(command.argv) == (
        "inference_demo --model-type llama --task-type causal-lm run --model-path /pod/model "
        "--compiled-model-path /pod/out --torch-dtype bfloat16 --tp-degree 64 --logical-nc-config 2 "
        "--batch-size 8 --ctx-batch-size 1 --tkg-batch-size 8 --max-context-length 4096 --seq-len 4096 "
        "--is-continuous-batching --enable-bucketing --on-device-sampling --dynamic --padding-side right "
        "--save-sharded-checkpoint --compile-only --prompt Hello"
    )
    assert command.env["NEURON_COMPILE_CACHE_URL"] == "/pod/cache"
    assert command.env["NEURON_LOGICAL_NC_CONFIG"] == "2"
    assert command.env["NEURON_PLATFORM_TARGET_OVERRIDE"] == "trn2"


def test_a_graph_only_set_is_compiled_without_its_weights() -> None:
    assert "--save-sharded-checkpoint" not in NXDI.compile_command(GRAPH).argv
    assert not any("weights" in pattern for pattern in NXDI.expects(GRAPH))
    assert NXDI.expects(TRN2)["weights/tp*_sharded_checkpoint.safetensors"] == 64


def test_quantization_names_the_type_and_where_the_quantized_weights_go() -> None:
    argv = NXDI.compile_command(replace(TRN2, quantization="fp8_e4m3")).argv
    at = argv.index("--quantized")
    assert argv[at : at + 7] == (
        "--quantized", "--quantization-dtype", "f8e4m3", "--quantization-type", "per_channel_symmetric",
        "--quantized-checkpoints-path", "/pod/model-quantized",
    )  # fmt: skip


def test_trainium1_has_one_kind_of_core() -> None:
    command = NXDI.compile_command(INF2)
    assert command.argv[command.argv.index("--logical-nc-config") + 1] == "1"
    assert "NEURON_LOGICAL_NC_CONFIG" not in command.env


def test_the_server_is_told_the_compiled_shapes_and_where_the_artifacts_are() -> None:
    command = NXDI.serve_command(serving(TRN2))
    assert " ".join(command.argv) == (
        "vllm serve /models/llama-1 --served-model-name llama --port 8000 --tensor-parallel-size 64 "
        "--max-model-len 4096 --max-num-seqs 8 --num-gpu-blocks-override 8 --no-enable-prefix-caching "
        '--additional-config {"override_neuron_config": {"logical_nc_config": 2, '
        '"save_sharded_checkpoint": true}}'
    )
    assert command.env["NEURON_COMPILED_ARTIFACTS"] == "/models/llama-1"


def test_a_graph_needs_the_whole_model_beside_it_and_pre_sharded_weights_only_the_rest() -> None:
    assert NXDI.layout("graph").model_files == "all"
    assert NXDI.layout("weights").model_files == "without_weights"
    assert NXDI.layout("graph").bundle == NXDI.layout("weights").bundle == ""


def test_a_server_needs_the_memory_for_sharding_only_when_it_shards() -> None:
    assert NXDI.host(100, TRN2).compiling == 200
    assert NXDI.host(100, TRN2).serving == 100
    assert NXDI.host(100, GRAPH).compiling == 0
    assert NXDI.host(100, GRAPH).serving == 200


def test_a_set_as_planned_has_no_problems() -> None:
    assert problems(NEURON_CONFIG) == []
    without = {key: value for key, value in NEURON_CONFIG.items() if key != "quantized"}
    assert problems(without) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tp_degree", 32),
        ("max_batch_size", 1),
        ("seq_len", 2048),
        ("logical_nc_config", 1),
        ("is_continuous_batching", False),
        ("save_sharded_checkpoint", False),
        ("quantized", True),
    ],
)
def test_a_set_of_other_shapes_is_refused_with_both_values(key: str, value: Any) -> None:
    assert problems({**NEURON_CONFIG, key: value}) == [
        f"neuron_config.json says {key} = {value!r}, planned was {NEURON_CONFIG[key]!r}"
    ]


@pytest.mark.parametrize("neuron_config", [None, [], "x"])
def test_a_set_without_a_description_is_refused(neuron_config: Any) -> None:
    assert problems(neuron_config) == ["neuron_config.json has no neuron_config"]


def test_only_the_line_that_says_so_proves_that_the_artifacts_were_loaded() -> None:
    loaded = "INFO Successfully loaded pre-compiled model artifacts from /models/llama-1"
    missed = "WARNING Unable to find precompiled artifacts from /models/llama-1. Recompiling..."
    assert NXDI.doubts(evidence(log=f"a\n{loaded}\nb"), TRN2) == []
    assert "does not say" in NXDI.doubts(evidence(log="all is well"), TRN2)[0]
    assert "Recompiling" in NXDI.doubts(evidence(log=f"{missed}\n{loaded}"), TRN2)[0]
