"""TGI: the older optimum-neuron in its image, its launcher's checks, its endpoints and its metrics."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from local.shims.optimum import cli
from local.shims.tgi.launcher import main

from .clients import chat, get, post, stream
from .conftest import NO_WAIT, PATIENCE, TRN2, Call, Run, Served, environment, export_command, start

IMAGE = "ghcr.io/huggingface/text-generation-inference:3.3.6-neuron"
INF2 = {"instance_type": "inf2.xlarge", "devices": [0], "node": "node-2"}
SETTINGS = {"LOCAL_IMAGE": IMAGE, "NEURON_PLATFORM_TARGET_OVERRIDE": "inf2"}
SHAPES = ("--max-batch-size", "4", "--max-input-tokens", "768", "--max-total-tokens", "1024")
Command = list[str | Path]


def export(model: Path, output: Path, *flags: str) -> Command:
    """The export inside the TGI image: optimum-neuron 0.3.0 has no instance type, and TP is --num_cores."""
    command: Command = ["optimum-cli", "export", "neuron", "-m", model, "--task", "text-generation"]
    command += ["--batch_size", "4", "--sequence_length", "1024", "--num_cores", "2"]
    return [*command, "--auto_cast_type", "bf16", *flags, output]


def launcher(model: Path, *flags: str, command: str = "text-generation-launcher") -> Command:
    return [command, "--model-id", model, "--hostname", "0.0.0.0", *flags]


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tgi")
    command = [str(part) for part in export(checkpoint, folder / "model")]
    settings = environment(folder, faults=NO_WAIT, **SETTINGS)
    subprocess.run(command, env=settings, check=True, capture_output=True, timeout=PATIENCE)
    return folder / "model"


@pytest.fixture(scope="module")
def server(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("tgi-server")
    served = start(launcher(exported, *SHAPES), folder, silicon=INF2, LOCAL_IMAGE=IMAGE)
    yield served
    served.process.kill()
    served.process.wait(PATIENCE)


def test_an_export_is_optimums_with_what_the_older_version_kept(exported: Path) -> None:
    content = json.loads((exported / "neuron_config.json").read_text())
    versions = content["optimum_neuron_version"], content["neuronxcc_version"]
    assert versions == ("0.3.0", "2.19.8089.0+8ab9f450")
    assert (content["target"], content["tp_degree"], content["torch_dtype"]) == (None, 2, "bfloat16")
    assert (content["continuous_batching"], content["logical_nc_config"]) == (True, 1)
    assert len(list((exported / "checkpoint/weights").iterdir())) == 2


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--instance_type", "inf2"], 2, "unrecognized arguments: --instance_type"),
        (["--num_cores", "3"], 1, "tensor_parallel_size 3 is not supported on trn1"),
    ],
)
def test_a_wrong_export_is_refused(
    checkpoint: Path, tmp_path: Path, call: Call, flags: list[str], code: int, said: str
) -> None:
    refused = call(cli.main, *export(checkpoint, tmp_path / "model", *flags)[1:], **SETTINGS)
    assert (refused.returncode, said in refused.stderr) == (code, True)


def test_the_older_export_ignores_the_degree_of_the_newer_flag(
    checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    command = export(checkpoint, tmp_path / "model", "--tensor_parallel_size", "1")
    assert run(*command, faults=NO_WAIT, **SETTINGS).returncode == 0
    assert json.loads((tmp_path / "model/neuron_config.json").read_text())["tp_degree"] == 2


def test_there_is_no_serve_command_in_the_tgi_image(exported: Path, run: Run) -> None:
    refused = run("optimum-cli", "neuron", "serve", "-m", exported, **SETTINGS)
    assert (refused.returncode, "invalid choice: 'serve'" in refused.stderr) == (2, True)


def test_models_are_known_by_the_path_they_were_given(server: Served, exported: Path) -> None:
    assert json.loads(get(f"{server.url}/v1/models")) == {
        "object": "list",
        "data": [{"id": str(exported), "object": "model", "created": 0, "owned_by": str(exported)}],
    }
    info = json.loads(get(f"{server.url}/info"))
    assert (info["model_id"], info["max_input_tokens"], info["max_total_tokens"]) == (
        str(exported),
        768,
        1024,
    )
    assert get(f"{server.url}/health") == ""


def test_generate_answers_text_and_details_when_asked(server: Served) -> None:
    asked = {"inputs": "Where does the train go?", "parameters": {"max_new_tokens": 5}}
    _, answer = post(f"{server.url}/generate", asked)
    assert list(answer) == ["generated_text"]
    asked["parameters"] = {"max_new_tokens": 5, "details": True}
    _, answer = post(f"{server.url}/generate", asked)
    assert (answer["details"]["finish_reason"], answer["details"]["generated_tokens"]) == ("length", 5)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "/generate",
            {"inputs": "x", "parameters": {"max_new_tokens": 1024}},
            (
                "`inputs` tokens + `max_new_tokens` must be <= 1024. "
                "Given: 2 `inputs` tokens and 1024 `max_new_tokens`"
            ),
        ),
        ("/generate", {"inputs": "word " * 800}, "`inputs` must have less than 768 tokens. Given: 802"),
        ("/v1/chat/completions", chat(top_p=1.0), "`top_p` must be > 0.0 and < 1.0"),
        (
            "/v1/chat/completions",
            chat(stop=list("abcde")),
            "`stop` supports up to 4 stop sequences. Given: 5",
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_tgis_words(
    server: Served, path: str, body: dict[str, Any], message: str
) -> None:
    status, answer = post(f"{server.url}{path}", body)
    assert status == 422
    assert answer == {"error": f"Input validation error: {message}", "error_type": "validation"}


def test_any_model_name_is_taken_and_given_back(server: Served, exported: Path) -> None:
    _, answer = post(f"{server.url}/v1/chat/completions", chat(model="whatever", max_tokens=3))
    assert (answer["model"], answer["usage"]["completion_tokens"]) == ("whatever", 3)
    assert (answer["object"], answer["id"], answer["system_fingerprint"]) == (
        "chat.completion",
        "",
        "3.0.0-native",
    )
    _, answer = post(f"{server.url}/v1/chat/completions", chat(model="tgi", max_tokens=3))
    assert answer["model"] == str(exported)
    _, answer = post(f"{server.url}/v1/completions", {"model": "x", "prompt": "Hello", "max_tokens": 3})
    assert (answer["model"], answer["choices"][0]["finish_reason"]) == (str(exported), "length")


async def test_chat_chunks_have_the_role_each_and_usage_when_asked(server: Served) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"{server.url}/v1/chat/completions"
        plain = await stream(session, url, chat(max_tokens=5))
        asked = await stream(session, url, chat(max_tokens=5, stream_options={"include_usage": True}))
        completed = await stream(
            session, f"{server.url}/v1/completions", {"prompt": "Hello", "max_tokens": 5}
        )
    assert [each.done for each in (plain, asked, completed)] == [True] * 3
    assert plain.text == asked.text
    assert all(chunk["choices"][0]["delta"]["role"] == "assistant" for chunk in plain.chunks)
    assert all(chunk["usage"] is None for chunk in plain.chunks)
    assert asked.chunks[-1]["choices"] == []
    assert asked.chunks[-1]["usage"]["completion_tokens"] == 5
    assert completed.chunks[-1]["usage"]["completion_tokens"] == 5
    assert [chunk["choices"][0]["finish_reason"] for chunk in completed.chunks][-2:] == ["", "length"]


def test_metrics_begin_with_the_first_request(exported: Path, tmp_path: Path) -> None:
    served = start(launcher(exported, *SHAPES), tmp_path, silicon=INF2, LOCAL_IMAGE=IMAGE)
    try:
        assert "tgi_" not in get(f"{served.url}/metrics")
        post(f"{served.url}/v1/chat/completions", chat(max_tokens=4))
        post(f"{served.url}/v1/chat/completions", chat(top_p=2))
        shown = get(f"{served.url}/metrics").splitlines()
        for line in (
            "tgi_request_count 2.0",
            'tgi_request_failure{err="validation"} 1.0',
            "tgi_request_success 1",
            "tgi_queue_size 0",
            "tgi_batch_current_size 0",
            'tgi_batch_inference_count{method="prefill"} 1.0',
            'tgi_batch_inference_count{method="decode"} 3.0',
        ):
            assert line in shown
        assert any(line.startswith('tgi_request_duration_bucket{le="') for line in shown)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(PATIENCE) == 0
        log = served.log()
        order = (
            "Warming up model",
            "Connected",
            "signal received, starting graceful shutdown",
            "shard terminated",
        )
        assert sorted(order, key=log.index) == list(order)
    finally:
        served.process.kill()
        served.process.wait(PATIENCE)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--quantize-all"], "error: unexpected argument '--quantize-all' found"),
        (["--max-input-tokens", "1024", "--max-total-tokens", "1024"], "`max_input_tokens`(1024) must be <"),
        ([*SHAPES[2:], "--max-batch-size", "8"], "Inconsistent batch_size configuration"),
        (
            ["--max-batch-size", "4", "--max-input-tokens", "5000", "--max-total-tokens", "6000"],
            "`max_batch_prefill_tokens` must be >= `max_input_tokens`",
        ),
        (
            ["--max-batch-size", "1", "--max-input-tokens", "768", "--max-total-tokens", "8192"],
            "NotEnoughMemory(8192)",
        ),
    ],
)
def test_flags_that_do_not_fit_the_export_end_the_launcher(
    exported: Path, call: Call, flags: list[str], said: str
) -> None:
    refused = call(main, *launcher(exported, *flags)[1:], silicon=INF2, LOCAL_IMAGE=IMAGE)
    assert refused.returncode in (1, 2)
    assert said in refused.stderr + refused.stdout


def test_an_export_of_another_version_is_taken_for_none(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    command = export_command(checkpoint, tmp_path / "model", instance_type="inf2", tensor_parallel_size=2)
    assert run(*command, faults=NO_WAIT).returncode == 0
    refused = run(*launcher(tmp_path / "model", *SHAPES), silicon=INF2, LOCAL_IMAGE=IMAGE)
    assert "No cached version found for" in refused.stdout
    assert "Error: DownloadError" in refused.stderr


def test_it_runs_on_no_other_chip_and_not_without_one(exported: Path, call: Call) -> None:
    refused = call(main, *launcher(exported, *SHAPES)[1:], silicon=TRN2, LOCAL_IMAGE=IMAGE)
    assert "the NEFF was compiled for trn1, the device is trn2" in refused.stdout
    assert (refused.returncode, "Error: ShardCannotStart" in refused.stderr) == (1, True)
    bare = call(main, *launcher(exported, *SHAPES)[1:], LOCAL_IMAGE=IMAGE)
    assert "SystemError: No neuron cores detected on the host." in bare.stdout


def test_the_images_entry_point_takes_the_shapes_from_the_export(
    exported: Path, tmp_path: Path, run: Run
) -> None:
    command = launcher(exported, command="tgi-entrypoint.sh")
    served = start(command, tmp_path, silicon=INF2, LOCAL_IMAGE=IMAGE)
    try:
        info = json.loads(get(f"{served.url}/info"))
        assert (info["max_input_tokens"], info["max_total_tokens"]) == (512, 1024)
    finally:
        served.process.kill()
        served.process.wait(PATIENCE)
    refused = run(*command, "--max-batch-size", "8", silicon=INF2, LOCAL_IMAGE=IMAGE)
    assert "Exception: Invalid neuron config and env." in refused.stderr
