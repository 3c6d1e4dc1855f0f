"""The native plugin's command lines, word by word, and what proves that its cache was used."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.neuron.engines.builds import GRAPH, evidence, serving
from trainyard.neuron.engines import engine

NATIVE = engine("native")
SHAPES = (
    "--tensor-parallel-size 64 --max-model-len 4096 --max-num-batched-tokens 4096 --max-num-seqs 8 "
    "--block-size 32 --num-gpu-blocks-override 1024 "
    '--additional-config {"neuron_config": {"num_batched_tokens_buckets": [128, 256, 512, 1024, 2048, 4096], '
    '"num_seqs_buckets": [1, 2, 4, 8]}}'
)
FOLDERS = tuple(f"neuron/compile_cache/{number:032x}" for number in range(10))
GRAPHS = tuple(f"{folder}/graph_{folder[-4:]}.neff" for folder in FOLDERS)
WHOLE = {**dict.fromkeys(GRAPHS, 10), **{f"{folder}/.compilation_complete": 0 for folder in FOLDERS}}
QUIET = "INFO Local cache hit for key: 0a\nINFO Model warmup completed: 6 buckets\n"


def test_the_compile_is_vllm_serve_without_devices_into_a_cache_of_its_own() -> None:
    command = NATIVE.compile_command(GRAPH)
    assert " ".join(command.argv) == f"vllm serve /pod/model {SHAPES}"
    assert command.until == "Model warmup completed"
    assert command.env == {
        "HF_HUB_OFFLINE": "1",
        "VLLM_CACHE_ROOT": "/pod/out",
        "VLLM_NEURON_CPU_COMPILE": "1",
        "NEURON_PLATFORM_TARGET_OVERRIDE": "trn2",
        "VLLM_NEURON_COMPILATION_TIMEOUT": "3600",
        "NEURON_LIBTORCH_COMPILATION_TIMEOUT": "3600",
        "NEURON_LOGICAL_NC_CONFIG": "2",
    }


def test_the_server_has_the_same_shapes_and_may_not_compile() -> None:
    command = NATIVE.serve_command(serving(GRAPH))
    assert " ".join(command.argv) == (
        f"vllm serve /models/llama-1 --served-model-name llama --port 8000 {SHAPES} --shutdown-timeout 120"
    )
    assert command.env["VLLM_CACHE_ROOT"] == "/models/llama-1.cache"
    assert command.env["VLLM_NEURON_DISABLE_WARMUP_COMPILE"] == "1"
    assert command.env["NEURON_LIBTORCH_DISABLE_GRAPH_CAPTURE_BACKEND"] == "1"
    assert "VLLM_NEURON_CPU_COMPILE" not in command.env


@pytest.mark.parametrize(
    ("batch", "sequence", "tokens", "sequences"),
    [
        (1, 64, [64], [1]),
        (6, 1000, [128, 256, 512, 1000], [1, 2, 4, 6]),
        (4, 131072, [128, 256, 512, 1024, 2048, 4096], [1, 2, 4]),
    ],
)
def test_the_largest_buckets_are_what_the_server_is_told(
    batch: int, sequence: int, tokens: list[int], sequences: list[int]
) -> None:
    argv = NATIVE.compile_command(replace(GRAPH, batch_size=batch, sequence_length=sequence)).argv
    assert str(tokens[-1]) == argv[argv.index("--max-num-batched-tokens") + 1]
    assert f'"num_batched_tokens_buckets": {tokens}' in argv[-1]
    assert f'"num_seqs_buckets": {sequences}' in argv[-1]


def test_a_set_has_a_graph_for_every_bucket_and_no_weights() -> None:
    assert NATIVE.holds == ("graph",)
    assert NATIVE.expects(GRAPH) == {
        "neuron/compile_cache/*/graph_*.neff": 10,
        "neuron/compile_cache/*/.compilation_complete": 10,
    }


def test_an_empty_graph_and_an_unfinished_one_are_none() -> None:
    assert NATIVE.problems_of_bundle(WHOLE, lambda path: b"", GRAPH) == []
    empty = {**WHOLE, GRAPHS[3]: 0}
    assert NATIVE.problems_of_bundle(empty, lambda path: b"", GRAPH) == [f"{GRAPHS[3]} is empty"]
    torn = {path: size for path, size in WHOLE.items() if path != f"{FOLDERS[4]}/.compilation_complete"}
    assert NATIVE.problems_of_bundle(torn, lambda path: b"", GRAPH) == [f"{GRAPHS[4]} was not finished"]


def test_hits_in_the_log_and_an_unchanged_cache_prove_the_use() -> None:
    assert NATIVE.doubts(evidence(log=QUIET, files=GRAPHS, published=GRAPHS), GRAPH) == []


@pytest.mark.parametrize(
    ("log", "files", "words"),
    [
        ("INFO Uvicorn running", GRAPHS, "does not say 'Local cache hit for key'"),
        (QUIET + "INFO Compiling...", GRAPHS, "its log says 'INFO Compiling...'"),
        (QUIET + "INFO Remote cache hit for key 0b", GRAPHS, "Remote cache hit"),
        (QUIET, (*GRAPHS, "neuron/compile_cache/new/graph_1.neff"), "1 graph(s) that were not published"),
    ],
)
def test_silence_compiling_and_new_graphs_are_doubts(log: str, files: tuple[str, ...], words: str) -> None:
    (doubt,) = NATIVE.doubts(evidence(log=log, files=files, published=GRAPHS), GRAPH)
    assert words in doubt


def test_it_is_for_trainium2_and_later() -> None:
    assert not {"trn1", "trn1n", "inf2"} & NATIVE.families
