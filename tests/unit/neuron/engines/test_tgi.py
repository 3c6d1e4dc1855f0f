"""TGI's command lines, word by word. Its sets are optimum-neuron's."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.neuron.engines.builds import INF2, evidence, serving
from trainyard.neuron.engines import engine

TGI = engine("tgi")


def test_the_compile_is_an_export_for_its_own_family() -> None:
    assert " ".join(TGI.compile_command(INF2).argv) == (
        "optimum-cli export neuron -m /pod/model --instance_type inf2 --batch_size 8 --sequence_length 4096 "
        "--tensor_parallel_size 8 --task text-generation /pod/out"
    )


def test_the_launcher_is_told_the_exported_limits() -> None:
    command = TGI.serve_command(serving(replace(INF2, sequence_length=2048)))
    assert " ".join(command.argv) == (
        "text-generation-launcher --model-id /models/llama-1 --hostname 0.0.0.0 --port 8000 "
        "--max-batch-size 8 --max-input-tokens 2047 --max-total-tokens 2048"
    )


def test_it_does_not_run_on_trainium2() -> None:
    assert frozenset({"trn1", "trn1n", "inf2"}) == TGI.families


def test_the_whole_of_an_inf2_node_is_a_degree_though_no_power_of_two() -> None:
    assert 24 in TGI.tensor_parallels(24)
    assert 12 in TGI.tensor_parallels(12)
    assert 12 not in TGI.tensor_parallels(24)


def test_a_log_that_speaks_of_compiling_is_a_doubt() -> None:
    assert TGI.doubts(evidence(log="INFO Warming up model\nINFO Connected"), INF2) == []
    assert TGI.doubts(evidence(log="INFO Compiling the model ..."), INF2) != []
