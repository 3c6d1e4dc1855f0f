"""optimum-neuron 0.4.5's command lines, word by word, and what its own description of a set must say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trainyard.errors import Refused
from trainyard.neuron.engines import engine
from trainyard.neuron.engines.base import Build
from trainyard.neuron.instances import INSTANCES, chips_for, instance

OPTIMUM = engine("optimum")
BUILD = Build(
    tensor_parallel=64,
    lnc=2,
    batch_size=8,
    sequence_length=4096,
    instance_family="trn2",
    dtype="bfloat16",
    model_dir="/pod/model",
    output_dir="/pod/out",
)
CONFIG: dict[str, Any] = {
    "optimum_neuron_version": "0.4.5",
    "neuronxcc_version": "2.21.33363.0+82129205",
    "tp_degree": 64,
    "batch_size": 8,
    "sequence_length": 4096,
    "target": "trn2",
}


def test_the_export_is_the_command_of_its_own_cache_job() -> None:
    command = OPTIMUM.compile_command(BUILD)
    assert " ".join(command.argv) == (
        "optimum-cli export neuron -m /pod/model --instance_type trn2 --batch_size 8 --sequence_length 4096 "
        "--tensor_parallel_size 64 --task text-generation /pod/out"
    )
    assert command.env["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("family", ["trn1", "trn1n", "inf2", "trn2"])
def test_the_export_names_the_family_as_the_tool_takes_it(family: str) -> None:
    argv = OPTIMUM.compile_command(replace(BUILD, instance_family=family)).argv
    assert argv[argv.index("--instance_type") + 1] == family


def test_the_server_reads_its_shapes_from_the_set_and_is_told_none() -> None:
    command = OPTIMUM.serve_command("/models/x", "llama", 8000, BUILD)
    assert " ".join(command.argv) == (
        "optimum-cli neuron serve -m /models/x --served-model-name llama --port 8000"
    )


def test_the_image_is_the_one_of_the_versions() -> None:
    assert OPTIMUM.image("eu-west-1") == (
        "763104351884.dkr.ecr.eu-west-1.amazonaws.com/huggingface-vllm-inference-neuronx:"
        "0.11.0-optimum0.4.5-neuronx-py310-sdk2.26.1-ubuntu22.04"
    )
    for version in (OPTIMUM.versions.vllm, f"optimum{OPTIMUM.versions.engine}", f"sdk{OPTIMUM.versions.sdk}"):
        assert version in OPTIMUM.image("eu-west-1")


def test_a_set_as_planned_has_no_problems() -> None:
    assert OPTIMUM.problems_of_bundle(CONFIG, BUILD) == []


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
    (problem,) = OPTIMUM.problems_of_bundle({**CONFIG, key: value}, BUILD)
    assert f"{key} = {value!r}" in problem


@pytest.mark.parametrize("family", ["trn1", "trn1n", "inf2"])
def test_all_of_the_first_generation_is_target_trn1(family: str) -> None:
    assert (
        OPTIMUM.problems_of_bundle({**CONFIG, "target": "trn1"}, replace(BUILD, instance_family=family)) == []
    )


def test_a_server_that_compiled_is_told_by_its_log() -> None:
    assert OPTIMUM.recompiled("INFO loaded\nINFO Compiling the model for batch 8\n") == (
        "INFO Compiling the model for batch 8"
    )
    assert OPTIMUM.recompiled("INFO Loading pre-compiled model\nINFO Uvicorn running\n") is None


@pytest.mark.parametrize(
    ("name", "lnc", "cores", "per_core"),
    [
        ("trn2.48xlarge", 2, 64, 24),
        ("trn2.48xlarge", 1, 128, 12),
        ("trn2.3xlarge", 2, 4, 24),
        ("trn1.32xlarge", 1, 32, 16),
        ("inf2.48xlarge", 1, 24, 16),
    ],
)
def test_logical_cores_and_their_memory_are_those_of_the_hardware(
    name: str, lnc: int, cores: int, per_core: int
) -> None:
    assert instance(name).cores(lnc) == cores
    assert instance(name).hbm_bytes_per_core(lnc) == per_core * 10**9


def test_lnc_is_two_on_trn2_only() -> None:
    assert {kind.family: OPTIMUM.lnc(kind.family) for kind in INSTANCES.values()} == {
        "trn2": 2,
        "trn1": 1,
        "trn1n": 1,
        "inf2": 1,
    }


@pytest.mark.parametrize(("tp", "chips"), [(1, 1), (4, 1), (5, 2), (8, 2), (16, 4), (64, 16)])
def test_chips_hold_four_logical_cores_each_on_trn2(tp: int, chips: int) -> None:
    assert chips_for(tp, instance("trn2.48xlarge"), 2) == chips


def test_what_has_no_neuron_is_refused_with_what_has() -> None:
    with pytest.raises(Refused, match=r"Use one of .*trn2\.48xlarge"):
        instance("p5.48xlarge")
