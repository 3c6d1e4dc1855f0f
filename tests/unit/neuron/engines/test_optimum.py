"""optimum-neuron 0.4.5's command lines, word by word, and what its own description of a set must say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.neuron.engines.builds import INF2, TRN2, evidence, serving
from trainyard.neuron.engines import engine
from trainyard.neuron.engines.base import Build
from trainyard.neuron.instances import INSTANCES

OPTIMUM = engine("optimum")
CONFIG: dict[str, Any] = {
    "optimum_neuron_version": "0.4.5",
    "neuronxcc_version": "2.21.33363.0+82129205",
    "tp_degree": 64,
    "batch_size": 8,
    "sequence_length": 4096,
    "target": "trn2",
}


def problems(config: Any, build: Build = TRN2) -> list[str]:
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    return OPTIMUM.problems_of_bundle({"neuron_config.json": len(text)}, lambda path: text, build)


def test_the_export_is_the_command_of_its_own_cache_job() -> None:
    command = OPTIMUM.compile_command(TRN2)
    assert " ".join(command.argv) == (
        "optimum-cli export neuron -m /pod/model --instance_type trn2 --batch_size 8 --sequence_length 4096 "
        "--tensor_parallel_size 64 --task text-generation /pod/out"
    )
    assert command.env == {"HF_HUB_OFFLINE": "1", "NEURON_COMPILE_CACHE_URL": "/pod/cache"}


@pytest.mark.parametrize(
    ("family", "word"),
    [("trn1", "trn1"), ("trn1n", "trn1n"), ("inf2", "inf2"), ("trn2", "trn2"), ("trn2u", "trn2")],
)
def test_the_export_names_the_family_as_the_tool_takes_it(family: str, word: str) -> None:
    argv = OPTIMUM.compile_command(replace(TRN2, instance_family=family)).argv
    assert argv[argv.index("--instance_type") + 1] == word


def test_the_hub_cache_is_asked_for_this_very_configuration() -> None:
    command = OPTIMUM.lookup_command("org/model", "aws-neuron/optimum-neuron-cache", TRN2)
    assert command is not None
    assert " ".join(command.argv) == (
        "optimum-cli neuron cache lookup org/model --task text-generation --instance_type trn2 "
        "--dtype bfloat16 --tensor_parallel_size 64 --batch_size 8 --sequence_length 4096 "
        "--repo_id aws-neuron/optimum-neuron-cache"
    )
    # The tool's parser knows two dtypes only.
    other = OPTIMUM.lookup_command("org/model", "x/y", replace(TRN2, dtype="float32"))
    assert other is not None
    assert "--dtype" not in other.argv


def test_the_server_reads_its_shapes_from_the_set_and_is_told_none() -> None:
    command = OPTIMUM.serve_command(serving(TRN2))
    assert " ".join(command.argv) == (
        "optimum-cli neuron serve -m /models/llama-1 --served-model-name llama --port 8000"
    )


def test_the_image_is_the_one_of_the_versions() -> None:
    assert OPTIMUM.image("eu-west-1") == (
        "763104351884.dkr.ecr.eu-west-1.amazonaws.com/huggingface-vllm-inference-neuronx:"
        "0.11.0-optimum0.4.5-neuronx-py310-sdk2.26.1-ubuntu22.04"
    )
    for version in (OPTIMUM.versions.vllm, f"optimum{OPTIMUM.versions.engine}", f"sdk{OPTIMUM.versions.sdk}"):
        assert version in OPTIMUM.image("eu-west-1")


def test_a_set_holds_a_shard_for_every_rank() -> None:
    assert OPTIMUM.expects(TRN2)["checkpoint/weights/tp*_sharded_checkpoint.safetensors"] == 64
    assert OPTIMUM.holds == ("weights",)


def test_a_set_as_planned_has_no_problems() -> None:
    assert problems(CONFIG) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimum_neuron_version", "0.4.4"),
        ("neuronxcc_version", "2.22.1.0+abc"),
        ("neuronxcc_version", "2.21.33363.00"),
        ("neuronxcc_version", None),
        ("tp_degree", 32),
        ("batch_size", 1),
        ("sequence_length", 2048),
        ("target", "trn1"),
        ("target", None),
    ],
)
def test_a_set_that_would_not_load_is_refused_by_key_and_value(key: str, value: object) -> None:
    (problem,) = problems({**CONFIG, key: value})
    assert f"{key} = {value!r}" in problem


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_a_description_that_is_none_is_a_problem_and_no_crash(text: bytes) -> None:
    assert len(problems(text)) == 1


def test_all_of_the_first_generation_is_target_trn1() -> None:
    config = {**CONFIG, "tp_degree": 8, "target": "trn1"}
    for family in ("trn1", "trn1n", "inf2"):
        assert problems(config, replace(INF2, instance_family=family)) == []


def test_a_server_that_compiled_is_told_by_its_log() -> None:
    assert OPTIMUM.doubts(evidence(log="INFO loaded\nINFO Compiling the model for batch 8\n"), TRN2) == [
        "its log says 'INFO Compiling the model for batch 8'"
    ]
    quiet = "INFO Loading pre-compiled model\nINFO Uvicorn running\n"
    assert OPTIMUM.doubts(evidence(log=quiet), TRN2) == []


def test_two_physical_cores_make_one_on_trainium2_only() -> None:
    assert {kind.family: OPTIMUM.lncs(kind.target) for kind in INSTANCES.values()} == {
        "trn2": (2,),
        "trn2u": (2,),
        "trn1": (1,),
        "trn1n": (1,),
        "inf2": (1,),
    }
