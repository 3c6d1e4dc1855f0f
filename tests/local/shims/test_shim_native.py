"""The native plugin: a compile that is a server, its cache, and serving from it alone."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.shims.native.buckets import Buckets, powers
from local.shims.server.vllm import main

from .clients import chat, get, metric, post
from .conftest import NO_WAIT, TRN2, Call, Run, Served, start, starting_servers

IMAGE = (
    "public.ecr.aws/neuron/pytorch-inference-vllm-neuronx:0.24.0.1.1.0-neuronx-py313-sdk2.32.0-ubuntu24.04"
)
INF2 = {"instance_type": "inf2.48xlarge", "devices": [0, 1], "node": "node-2"}
COMPILING = {"VLLM_NEURON_CPU_COMPILE": "1", "NEURON_PLATFORM_TARGET_OVERRIDE": "trn2"}
CLOSED = {
    "VLLM_NEURON_DISABLE_WARMUP_COMPILE": "1",
    "NEURON_LIBTORCH_DISABLE_GRAPH_CAPTURE_BACKEND": "1",
    "NEURON_SKIP_EFA_AFFINITY": "1",
    "VLLM_NEURON_COMPILATION_TIMEOUT": "600",
}
BUCKETS = {"num_batched_tokens_buckets": [256, 1024], "num_seqs_buckets": [1, 4]}
Command = list[str | Path]
Start = Callable[..., Served]


def vllm(model: Path, *flags: str, buckets: dict[str, Any] = BUCKETS) -> Command:
    """The command line, the same for compiling and for serving."""
    command: Command = ["vllm", "serve", model, "--served-model-name", "tiny", "--tensor-parallel-size", "4"]
    command += ["--max-model-len", "1024", "--max-num-batched-tokens", "1024", "--max-num-seqs", "4"]
    return [*command, "--additional-config", json.dumps({"neuron_config": buckets}), *flags]


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Start]:
    with starting_servers() as begin:

        def _start(command: Command, cache: Path, **settings: Any) -> Served:
            settings = {"faults": NO_WAIT, "LOCAL_IMAGE": IMAGE, "VLLM_CACHE_ROOT": str(cache)} | settings
            return begin(command, tmp_path, **settings)

        yield _start


@pytest.fixture(scope="module")
def cache(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled on a host without devices."""
    folder = tmp_path_factory.mktemp("native")
    served = start(
        vllm(checkpoint),
        folder,
        silicon=None,
        faults=NO_WAIT,
        LOCAL_IMAGE=IMAGE,
        VLLM_CACHE_ROOT=str(folder / "cache"),
        **COMPILING,
    )
    assert served.stop() == 0
    return folder / "cache"


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "neuron/compile_cache").iterdir() if path.is_dir())


def test_a_cpu_compile_is_a_server_that_stays_until_it_is_told_to_stop(
    checkpoint: Path, tmp_path: Path, starting: Start
) -> None:
    served = starting(vllm(checkpoint), tmp_path / "cache", silicon=None, **COMPILING)
    assert get(f"{served.url}/health") == ""
    log = served.log()
    assert log.index("Model warmup completed: 2 num_batched_tokens_buckets, 2 num_seqs_buckets") < log.index(
        "Application startup complete."
    )
    status, _ = post(f"{served.url}/v1/chat/completions", chat())
    assert status == 500  # nothing can be generated on a CPU
    time.sleep(0.1)
    assert served.process.poll() is None
    assert served.stop() == 0


def test_a_bucket_is_an_entry_with_the_files_of_the_plugin(cache: Path) -> None:
    found = entries(cache)
    assert len(found) == 4
    for entry in found:
        assert re.fullmatch(r"[0-9a-f]{32}", entry.name)
        assert {path.name for path in entry.iterdir()} == {
            "graph.hlo",
            f"graph_{entry.name}.neff",
            "command.txt",
            "log-neuron-cc.txt",
            ".artifact_metadata_v0.json",
            ".compilation_complete",
        }
        assert (cache / f"neuron/compile_cache/.{entry.name}.compilation_metadata").exists()


def test_a_full_cache_is_served_from_and_nothing_is_compiled(
    checkpoint: Path, cache: Path, tmp_path: Path, starting: Start
) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    served = starting(vllm(checkpoint), tmp_path / "cache", **CLOSED)
    log = served.log()
    assert log.count("Local cache hit for key: ") == 4
    assert "Compiling..." not in log
    status, answer = post(f"{served.url}/v1/chat/completions", chat(max_tokens=4))
    assert (status, answer["usage"]["completion_tokens"]) == (200, 4)
    labels = {"model_name": str(checkpoint)}
    assert (
        metric(served.url, "vllm_neuron:neff_execution_count_total", bucket_name="prefill_s256", **labels)
        == 1
    )
    assert (
        metric(served.url, "vllm_neuron:neff_execution_count_total", bucket_name="decode_b1", **labels) == 3
    )
    assert metric(served.url, "vllm_neuron:compilation_time_seconds", bucket_name="decode_b4", **labels) > 0
    for name in ("startup_time_seconds", "model_load_time_seconds", "model_load_size_bytes"):
        assert metric(served.url, f"vllm_neuron:{name}", **labels) > 0
    assert metric(served.url, "vllm:num_requests_running", model_name="tiny") == 0
    assert (entries(tmp_path / "cache")[0] / ".cache_accessed").exists()


@pytest.mark.parametrize(
    "change",
    [
        ["--max-model-len", "2048"],
        ["--num-gpu-blocks-override", "64"],
        ["--gpu-memory-utilization", "0.5"],
        ["--tensor-parallel-size", "2"],
    ],
)
def test_another_shape_is_a_miss_that_ends_the_server(
    checkpoint: Path, cache: Path, call: Call, change: list[str]
) -> None:
    settings = {"LOCAL_IMAGE": IMAGE, "VLLM_CACHE_ROOT": str(cache), **CLOSED}
    refused = call(main, *vllm(checkpoint, *change)[1:], silicon=TRN2, **settings)
    assert refused.returncode == 1
    assert re.search(
        r"VLLM_NEURON_DISABLE_WARMUP_COMPILE: local compile cache miss for key [0-9a-f]{32}\. "
        r"All graphs must be pre-compiled when warmup compilation is disabled\.",
        refused.stderr,
    )


def test_one_of_the_two_switches_alone_lets_a_miss_be_compiled(
    checkpoint: Path, tmp_path: Path, starting: Start
) -> None:
    only = {"VLLM_NEURON_DISABLE_WARMUP_COMPILE": "1"}
    served = starting(vllm(checkpoint), tmp_path / "cache", **only)
    assert served.log().count("Compiling...") == 4


def test_another_release_of_the_model_is_served_from_the_same_graphs(
    cache: Path, tmp_path: Path, starting: Start
) -> None:
    from local.checkpoints.checkpoint import write_checkpoint

    other = write_checkpoint(tmp_path / "other", seed=9)
    served = starting(vllm(other), cache, **CLOSED)
    assert served.log().count("Local cache hit") == 4


def test_an_entry_without_its_end_mark_is_compiled_again(
    checkpoint: Path, cache: Path, tmp_path: Path, starting: Start
) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    (entries(tmp_path / "cache")[1] / ".compilation_complete").unlink()
    served = starting(vllm(checkpoint), tmp_path / "cache")
    assert (served.log().count("Local cache hit"), served.log().count("Compiling...")) == (3, 1)


def test_an_entry_under_another_name_is_refused(
    checkpoint: Path, cache: Path, tmp_path: Path, call: Call
) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    entry = entries(tmp_path / "cache")[0]
    metadata = json.loads((entry / ".artifact_metadata_v0.json").read_text())
    (entry / ".artifact_metadata_v0.json").write_text(json.dumps(metadata | {"cache_key": "0" * 32}))
    settings = {"LOCAL_IMAGE": IMAGE, "VLLM_CACHE_ROOT": str(tmp_path / "cache"), **CLOSED}
    assert (
        "Cache key mismatch: expected" in call(main, *vllm(checkpoint)[1:], silicon=TRN2, **settings).stderr
    )


def test_a_failed_compilation_ends_the_server_and_poisons_nothing(
    checkpoint: Path, tmp_path: Path, run: Run, starting: Start
) -> None:
    settings = {"LOCAL_IMAGE": IMAGE, "VLLM_CACHE_ROOT": str(tmp_path / "cache"), **COMPILING}
    failed = run(*vllm(checkpoint), faults=NO_WAIT | {"compile_exit": 70}, **settings)
    assert failed.returncode == 1
    assert "FATAL: neuronx-cc compilation failed with 70. Check compiler logs." in failed.stderr
    assert "Internal tensorizer error" in next((tmp_path / "cache").rglob("log-neuron-cc.txt")).read_text()
    assert starting(vllm(checkpoint), tmp_path / "cache", silicon=None, **COMPILING).stop() == 0


def test_a_remote_cache_is_copied_from_before_anything_is_compiled(
    checkpoint: Path, cache: Path, tmp_path: Path, starting: Start
) -> None:
    remote = {"NEURON_LIBTORCH_REMOTE_CACHE": str(cache / "neuron/compile_cache")}
    served = starting(vllm(checkpoint), tmp_path / "cache", **remote)
    assert served.log().count("Remote cache hit for key") == 4
    assert "Compiling..." not in served.log()


@pytest.mark.parametrize(
    ("buckets", "said"),
    [
        (
            {"num_batched_tokens_buckets": [256, 512]},
            "Last bucket in num_batched_tokens_buckets must equal max_num_batched_tokens (1024), got 512",
        ),
        ({"num_seqs_buckets": [1, 8]}, "Last bucket in num_seqs_buckets must equal max_num_seqs (4), got 8"),
        ({"num_seqs_buckets": [4, 4]}, "num_seqs_buckets must be in strictly ascending order, got [4, 4]"),
    ],
)
def test_buckets_have_to_end_at_the_limits_of_the_flags(
    checkpoint: Path, call: Call, buckets: dict[str, Any], said: str
) -> None:
    refused = call(main, *vllm(checkpoint, buckets=buckets)[1:], LOCAL_IMAGE=IMAGE, **COMPILING)
    assert (refused.returncode, said in refused.stderr) == (1, True)


def test_more_batched_tokens_than_the_model_holds_are_clamped(checkpoint: Path, call: Call) -> None:
    command = vllm(
        checkpoint, "--max-num-batched-tokens", "4096", buckets={"num_batched_tokens_buckets": [4096]}
    )
    refused = call(main, *command[1:], LOCAL_IMAGE=IMAGE, **COMPILING)
    assert "must equal max_num_batched_tokens (1024), got 4096" in refused.stderr


def test_heads_that_the_degree_does_not_divide_are_refused(checkpoint: Path, call: Call) -> None:
    command = vllm(checkpoint, "--tensor-parallel-size", "8")
    refused = call(main, *command[1:], LOCAL_IMAGE=IMAGE, **COMPILING)
    assert "attention heads (4) must be divisible by tensor parallel size (8)" in refused.stderr


def test_native_is_for_trn2_and_later(checkpoint: Path, tmp_path: Path, call: Call) -> None:
    settings = {"LOCAL_IMAGE": IMAGE, "VLLM_CACHE_ROOT": str(tmp_path)}
    refused = call(main, *vllm(checkpoint)[1:], silicon=INF2, **settings)
    assert refused.returncode == 1
    assert "supports trn2, trn3" in refused.stderr
    assert "Failed to infer device type" in call(main, *vllm(checkpoint)[1:], **settings).stderr


def test_a_step_takes_the_smallest_bucket_that_holds_it() -> None:
    buckets = Buckets((128, 512), (1, 4))
    assert [buckets.prefill(tokens) for tokens in (1, 128, 129, 512, 9000)] == [
        "prefill_s128",
        "prefill_s128",
        "prefill_s512",
        "prefill_s512",
        "prefill_s512",
    ]
    assert [buckets.decode(running) for running in (1, 2, 4)] == ["decode_b1", "decode_b4", "decode_b4"]
    assert (powers(128, 1000), powers(1, 1), powers(128, 128)) == ([128, 256, 512, 1000], [1], [128])
