"""TGI's command lines, word by word. Its sets are optimum-neuron's."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.unit.neuron.engines.builds import INF2, evidence, serving
from trainyard.neuron.engines import engine

TGI = engine("tgi")


def test_the_compile_is_an_export_of_version_0_3() -> None:
    assert " ".join(TGI.compile_command(INF2).argv) == (
        "optimum-cli export neuron -m /pod/model --task text-generation --batch_size 8 "
        "--sequence_length 4096 --num_cores 8 --auto_cast_type bf16 /pod/out"
    )


def test_the_launcher_is_told_the_exported_limits() -> None:
    command = TGI.serve_command(serving(replace(INF2, sequence_length=2048)))
    assert " ".join(command.argv) == (
        "text-generation-launcher --model-id /models/llama-1 --hostname 0.0.0.0 --port 8000 "
        "--max-batch-size 8 --max-input-tokens 2047 --max-total-tokens 2048 "
        "--max-batch-prefill-tokens 16376"
    )
    assert command.env["HF_NUM_CORES"] == "8"
    assert command.env["HF_AUTO_CAST_TYPE"] == "bf16"


def test_a_set_of_0_3_names_no_target() -> None:
    said = {
        "optimum_neuron_version": "0.3.0",
        "neuronxcc_version": "2.19.8089.0+8ab9f450",
        "tp_degree": 8,
        "batch_size": 8,
        "sequence_length": 4096,
        "target": None,
    }
    assert TGI.problems_of_bundle({}, lambda path: json.dumps(said).encode(), INF2) == []
    other = {**said, "optimum_neuron_version": "0.4.5"}
    assert len(TGI.problems_of_bundle({}, lambda path: json.dumps(other).encode(), INF2)) == 1


def test_it_does_not_run_on_trainium2() -> None:
    assert frozenset({"trn1", "trn1n", "inf2"}) == TGI.families


def test_the_whole_of_an_inf2_node_is_a_degree_though_no_power_of_two() -> None:
    assert 24 in TGI.tensor_parallels(24)
    assert 12 in TGI.tensor_parallels(12)
    assert 12 not in TGI.tensor_parallels(24)


def test_a_log_that_speaks_of_compiling_is_a_doubt() -> None:
    assert TGI.doubts(evidence(log="INFO Warming up model\nINFO Connected"), INF2) == []
    assert TGI.doubts(evidence(log="INFO Compiling the model ..."), INF2) != []
