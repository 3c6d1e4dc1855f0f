"""Starting, refusing to start, faults by knob, and stopping without a cut stream."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from local.checkpoints.checkpoint import write_checkpoint

from .clients import chat, get, metric, post, stream, until
from .conftest import NO_WAIT, PATIENCE, TRN2, Run, Served, environment, export_command, start

Serve = Callable[..., Served]
FAST = {"silicon": TRN2}


def changed(exported: Path, folder: Path, **keys: Any) -> Path:
    """A copy of the export with other values in its neuron_config.json."""
    shutil.copytree(exported, folder)
    path = folder / "neuron_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return folder


def command(folder: Path, *flags: str) -> list[str | Path]:
    return ["optimum-cli", "neuron", "serve", "-m", folder, "--served-model-name", "tiny", *flags]


def taken(served: Served) -> float:
    """How many generations are the server's: they run, wait or have ended."""
    states = ("num_requests_running", "num_requests_waiting", "request_success_total")
    shown = get(f"{served.url}/metrics")
    found = re.findall(rf"^vllm:(?:{'|'.join(states)})\{{.*\}} (\S+)$", shown, re.MULTILINE)
    return sum(map(float, found))


def closed(served: Served) -> bool:
    """Nobody takes new connections any more."""
    place = urlsplit(served.url)
    with socket.socket() as probe:
        return probe.connect_ex((place.hostname, place.port)) != 0


async def test_a_shutdown_finishes_the_streams_in_flight_and_takes_no_new_ones(serve: Serve) -> None:
    served = serve()
    url = f"{served.url}/v1/chat/completions"
    async with aiohttp.ClientSession() as session:
        body = chat(max_tokens=200, ignore_eos=True)
        streams = [asyncio.create_task(stream(session, url, body)) for _ in range(6)]
        await until(lambda: taken(served) == 6)
        served.process.send_signal(signal.SIGTERM)
        await until(lambda: closed(served))
        async with aiohttp.ClientSession() as another:
            with pytest.raises(aiohttp.ClientConnectorError):
                await stream(another, url, body)
        received = await asyncio.gather(*streams)
    assert all(answer.done and len(answer.text.split()) == 200 for answer in received)
    assert served.process.wait(PATIENCE) == 0


async def test_a_request_on_a_connection_that_is_open_is_answered_while_stopping(serve: Serve) -> None:
    served = serve()
    async with aiohttp.ClientSession() as session:
        url = f"{served.url}/v1/chat/completions"
        # Two at once: two connections that are kept. The server stays for the long answer on one of them.
        await asyncio.gather(*(stream(session, url, chat(max_tokens=9, ignore_eos=True)) for _ in range(2)))
        long = asyncio.create_task(stream(session, url, chat(max_tokens=900, ignore_eos=True)))
        await until(lambda: taken(served) == 3)
        served.process.send_signal(signal.SIGTERM)
        await until(lambda: closed(served))
        received = await stream(session, url, chat(max_tokens=20, ignore_eos=True))
        long.cancel()
    assert received.done
    assert served.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"optimum_neuron_version": "0.4.4"}, "version 0.4.4, but this version is 0.4.5"),
        (
            {"neuronxcc_version": "2.20.0.0+0"},
            "of the neuronxcc compiler, but 2.21.33363.0+82129205 is installed",
        ),
        ({"target": "trn1"}, "is compiled for trn1 and cannot run on a trn2 instance"),
        ({"tp_degree": 8}, "(8) is higher than the number of available Neuron cores (4)"),
    ],
)
def test_an_export_for_something_else_is_refused(
    exported: Path, tmp_path: Path, run: Run, keys: dict[str, Any], message: str
) -> None:
    refused = run(*command(changed(exported, tmp_path / "other", **keys)), silicon=TRN2)
    assert refused.returncode == 1
    assert message in refused.stderr


@pytest.mark.parametrize(
    ("flags", "settings", "code", "message"),
    [
        ((), {}, 1, "No Neuron device detected."),
        (("--batch_size", "8"), FAST, 1, "The specified batch_size 8 is inconsistent"),
        (("--tensor_parallel_size", "2"), FAST, 1, "the one used to export the neuron model (4)"),
        ((), FAST | {"NEURON_RT_VISIBLE_CORES": "0-1"}, 1, "number of available Neuron cores (2)"),
        (("--no-such-flag",), FAST, 2, "unrecognized arguments: --no-such-flag"),
        (("--device", "neuron"), FAST, 2, "unrecognized arguments: --device"),
        (("--shutdown-timeout", "30"), FAST, 2, "unrecognized arguments: --shutdown-timeout"),
        ((), FAST | {"faults": {"crash_on_start": "nrt_init failed"}}, 1, "RuntimeError: nrt_init failed"),
    ],
)
def test_a_server_that_cannot_run_says_why_and_exits(
    exported: Path, run: Run, flags: tuple[str, ...], settings: dict[str, Any], code: int, message: str
) -> None:
    refused = run(*command(exported, *flags), **settings)
    assert (refused.returncode, message in refused.stderr) == (code, True), refused.stderr


def test_a_shutdown_timeout_is_known_from_vllm_0_18(run: Run, checkpoint: Path) -> None:
    image = "public.ecr.aws/neuron/pytorch-inference-vllm-neuronx:0.24.0.1.1.0-neuronx-py313-sdk2.32.0"
    assert run("vllm", "--version", LOCAL_IMAGE=image).stdout == "0.24.0\n"
    started = run("vllm", "serve", checkpoint, "--shutdown-timeout", "30", LOCAL_IMAGE=image)
    assert "Failed to infer device type" in started.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.pt").unlink(), "model.pt does not exist"),
        (lambda folder: (folder / "model.pt").write_bytes(b"PK"), "failed finding central directory"),
        (
            lambda folder: (folder / "checkpoint/weights/tp2_sharded_checkpoint.safetensors").unlink(),
            "No such file or directory",
        ),
        (
            lambda folder: (folder / "checkpoint/weights/tp2_sharded_checkpoint.safetensors").write_bytes(
                b"x"
            ),
            "Error while deserializing header",
        ),
    ],
)
def test_a_damaged_bundle_is_refused(
    exported: Path, tmp_path: Path, run: Run, damage: Callable[[Path], object], message: str
) -> None:
    shutil.copytree(exported, tmp_path / "damaged")
    damage(tmp_path / "damaged")
    refused = run(*command(tmp_path / "damaged"), silicon=TRN2)
    assert refused.returncode == 1
    assert message in refused.stderr


def test_another_revision_s_weights_serve_on_the_same_graph(
    exported: Path, tmp_path: Path, serve: Serve
) -> None:
    """The bundle's graph with a plain checkpoint beside it: what a weights-only release mounts."""
    first = post(f"{serve().url}/v1/chat/completions", chat(max_tokens=20))[1]
    other = write_checkpoint(tmp_path / "other", seed=2)
    for name in ("model.pt", "neuron_config.json"):
        shutil.copy(exported / name, other / name)
    served = start(command(other), tmp_path, silicon=TRN2)
    try:
        second = post(f"{served.url}/v1/chat/completions", chat(max_tokens=20))[1]
        assert "There are no saved sharded checkpoints." in served.log()
        assert "Call compiler" not in served.log()
    finally:
        served.stop()
    assert second["choices"][0]["message"] != first["choices"][0]["message"]


def test_a_model_that_was_not_exported_needs_leave_to_compile(
    checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    refused = run(*command(checkpoint), silicon=TRN2)
    assert "No cached version found for tiny" in refused.stderr
    allowed = start(
        command(checkpoint, "--allow_non_cached_model", "--batch_size", "2", "--tensor_parallel_size", "4"),
        tmp_path,
        silicon=TRN2,
        faults=NO_WAIT,
    )
    assert "Call compiler with cmd" in allowed.log()
    assert allowed.stop() == 0


def test_the_recompile_knob_compiles_although_the_artifacts_are_there(serve: Serve) -> None:
    assert "Call compiler with cmd" in serve(faults=NO_WAIT | {"recompile": True}).log()


def test_a_server_that_is_never_ready_is_healthy_and_never_generates(serve: Serve) -> None:
    served = serve(faults={"never_ready": True})
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(_one(served), timeout=0.5))
    assert asyncio.run(_health(served)) == 200
    served.process.kill()


async def _one(served: Served) -> object:
    async with aiohttp.ClientSession() as session:
        return await stream(session, f"{served.url}/v1/chat/completions", chat(max_tokens=1))


async def _health(served: Served) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{served.url}/health") as answer:
        return answer.status


async def test_errors_and_cuts_come_at_their_rates(serve: Serve) -> None:
    served = serve(faults={"error_rate": 0.25, "cut_rate": 0.25})
    failed = cut = whole = 0
    async with aiohttp.ClientSession() as session:
        for _ in range(16):
            try:
                received = await stream(session, f"{served.url}/v1/chat/completions", chat(max_tokens=3))
            except aiohttp.ClientError:
                cut += 1
                continue
            failed += received.status == 500
            whole += received.done
    assert (failed, cut, whole) == (4, 3, 9)


async def test_the_slow_knob_multiplies_every_time(serve: Serve) -> None:
    served = serve(faults={"slow": 10})
    async with aiohttp.ClientSession() as session:
        await stream(session, f"{served.url}/v1/chat/completions", chat(max_tokens=4))
    # By the timing model 0.11 s, and 0.0412 s for each of the other three; never faster, whatever the machine
    # does. A first token that comes late makes the gap after it shorter: so their sum.
    assert metric(served.url, "vllm:time_to_first_token_seconds_sum") >= 0.11
    assert metric(served.url, "vllm:e2e_request_latency_seconds_sum") >= 0.11 + 3 * 0.0412


def test_memory_is_really_taken(checkpoint: Path, tmp_path: Path) -> None:
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -v 400000; exec "$@"', "-", *export_command(checkpoint, tmp_path / "a")],
        env=environment(tmp_path, faults=NO_WAIT | {"oom_mib": 800}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert limited.returncode != 0
    assert "MemoryError" in limited.stderr
