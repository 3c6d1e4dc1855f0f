"""The other engines: NxD Inference, the native plugin, TGI."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .clients import chat, get, post
from .conftest import NO_WAIT, TRN2, Run, environment, export_command, start

INF2 = {"instance_type": "inf2.48xlarge", "devices": [0, 1], "node": "node-2"}
Command = list[str | Path]


def demo(model: Path, output: Path, *flags: str) -> Command:
    command: Command = ["inference_demo", "--model-type", "llama", "--task-type", "causal-lm", "run"]
    command += ["--model-path", model, "--compiled-model-path", output, "--tp-degree", "4"]
    return [*command, "--batch-size", "4", "--seq-len", "1024", "--compile-only", *flags]


@pytest.fixture(scope="module")
def compiled(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nxdi")
    settings = {"NEURON_PLATFORM_TARGET_OVERRIDE": "trn2"}
    command = demo(checkpoint, folder / "compiled")
    subprocess.run(
        command, env=environment(folder, faults=NO_WAIT, **settings), check=True, capture_output=True
    )
    return folder / "compiled"


def vllm(model: Path, *flags: str) -> Command:
    command: Command = ["vllm", "serve", model, "--served-model-name", "tiny", "alias"]
    command += ["--tensor-parallel-size", "4", "--max-model-len", "1024", "--max-num-seqs", "4"]
    return [*command, *flags]


def served_log(command: Command, folder: Path, **settings: Any) -> Iterator[str]:
    server = start(command, folder, **settings)
    try:
        status, answer = post(f"{server.url}/v1/chat/completions", chat(max_tokens=4, model="alias"))
        assert (status, answer["usage"]["completion_tokens"]) == (200, 4)
        yield server.log()
    finally:
        server.process.kill()
        server.process.wait(10)


def test_nxdi_writes_its_layout(compiled: Path) -> None:
    assert {str(path.relative_to(compiled)) for path in compiled.rglob("*") if path.is_file()} == {
        "model.pt",
        "neuron_config.json",
        *(f"weights/tp{rank}_sharded_checkpoint.safetensors" for rank in range(4)),
    }


def test_nxdi_says_when_it_loaded_what_was_compiled(checkpoint: Path, compiled: Path, tmp_path: Path) -> None:
    settings = {"NEURON_COMPILED_ARTIFACTS": str(compiled)}
    log = next(served_log(vllm(checkpoint), tmp_path, faults=NO_WAIT, **settings))
    assert "Successfully loaded pre-compiled model artifacts" in log
    assert "Call compiler" not in log


def test_nxdi_compiles_silently_when_the_artifacts_do_not_fit(
    checkpoint: Path, compiled: Path, tmp_path: Path
) -> None:
    shutil.copytree(compiled, tmp_path / "other")
    path = tmp_path / "other" / "neuron_config.json"
    content = json.loads(path.read_text())
    content["neuron_config"]["seq_len"] = 512
    path.write_text(json.dumps(content))
    settings = {"NEURON_COMPILED_ARTIFACTS": str(tmp_path / "other")}
    log = next(served_log(vllm(checkpoint), tmp_path, faults=NO_WAIT, **settings))
    assert "Successfully loaded" not in log
    assert "Call compiler with cmd" in log


def test_native_compiles_on_a_cpu_host_for_later(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    cache = {"VLLM_CACHE_ROOT": str(tmp_path / "cache")}
    compiling = {"VLLM_NEURON_CPU_COMPILE": "1", "NEURON_PLATFORM_TARGET_OVERRIDE": "trn2"}
    assert run(*vllm(checkpoint), faults=NO_WAIT, **cache, **compiling).returncode == 0
    assert len(list((tmp_path / "cache/neuron/compile_cache").glob("*/model.neff"))) == 2
    closed = {
        "VLLM_NEURON_DISABLE_WARMUP_COMPILE": "1",
        "NEURON_LIBTORCH_DISABLE_GRAPH_CAPTURE_BACKEND": "1",
    }
    log = next(served_log(vllm(checkpoint), tmp_path, **cache, **closed))
    assert log.count("Using cached graph") == 2
    refused = run(*vllm(checkpoint, "--max-num-batched-tokens", "256"), silicon=TRN2, **cache, **closed)
    assert "and compiling is disabled" in refused.stderr


def test_native_is_for_trn2_and_later(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    refused = run(*vllm(checkpoint), silicon=INF2, VLLM_CACHE_ROOT=str(tmp_path))
    assert refused.returncode == 1
    assert "supports trn2, trn3" in refused.stderr


def test_tgi_serves_on_inf2_and_not_on_trn2(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    command = export_command(checkpoint, tmp_path / "model", instance_type="inf2")
    assert run(*command, faults=NO_WAIT).returncode == 0
    launcher: Command = ["text-generation-launcher", "--model-id", tmp_path / "model"]
    assert "does not support trn2" in run(*launcher, silicon=TRN2).stderr
    server = start(launcher, tmp_path, silicon=INF2)
    try:
        asked = {"inputs": "Where does the train go?", "parameters": {"max_new_tokens": 5}}
        _, answer = post(f"{server.url}/generate", asked)
        assert answer["details"] == {"finish_reason": "length", "generated_tokens": 5}
        assert json.loads(get(f"{server.url}/info"))["max_total_tokens"] == 1024
        status, _ = post(f"{server.url}/generate", {"inputs": "x", "parameters": {"max_new_tokens": 9999}})
        assert status == 422
        _, chatted = post(f"{server.url}/v1/chat/completions", chat(model="tgi", max_tokens=3))
        assert chatted["usage"]["completion_tokens"] == 3
    finally:
        server.process.kill()
        server.process.wait(10)
