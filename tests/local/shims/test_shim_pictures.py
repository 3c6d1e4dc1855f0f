"""The stand-in of vLLM with a model that has eyes: which pictures it takes, and how it counts them."""

from __future__ import annotations

import base64
import json
import math
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.checkpoints.checkpoint import write_checkpoint
from local.checkpoints.shape import Shape
from local.shims.server.pictures import Eyes, read_eyes
from local.shims.server.protocol import ApiError, Generation, parse_generation
from local.shims.server.vllm import main
from trainyard.bench.pictures import Painter
from trainyard.load_spec import Images

from .clients import chat, metric, post
from .conftest import NO_WAIT, PATIENCE, TRN2, Call, Served, start

NATIVE = "pytorch-inference-vllm-neuronx:0.24.0.1.1.0-neuronx-py313-sdk2.32.0-ubuntu24.04"
EYES = Eyes(side=32, least=65536, most=16777216)


def png(width: int, height: int, seed: object = 0) -> str:
    return Painter(width, height).data_url(seed)


def showing(*urls: str, **fields: Any) -> dict[str, Any]:
    """A chat request with pictures before its text."""
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*parts, {"type": "text", "text": "What is this?"}]
    return chat(messages=[{"role": "user", "content": content}], **fields)


def asked(body: dict[str, Any], eyes: Eyes | None = EYES, room: int = 4096) -> Generation:
    return parse_generation(body, chat=True, models=["tiny"], max_model_len=room, eyes=eyes)


def refusal(body: dict[str, Any], eyes: Eyes | None = EYES, room: int = 4096) -> str:
    with pytest.raises(ApiError) as caught:
        asked(body, eyes, room)
    assert (caught.value.status, caught.value.kind) == (400, "BadRequestError")
    return caught.value.message


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "seeing"
    return write_checkpoint(folder, seed=1, shape=Shape(architecture="qwen3_vl", max_positions=1024))


@pytest.fixture(scope="module")
def served(seeing: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """At most two pictures a prompt, and the context of the checkpoint: 1024 tokens."""
    folder = tmp_path_factory.mktemp("served")
    command: list[str | Path] = ["vllm", "serve", seeing, "--served-model-name", "tiny"]
    command += ["--limit-mm-per-prompt", '{"image": 2, "video": 0}', "--max-num-seqs", "2"]
    found = start(command, folder, faults=NO_WAIT, LOCAL_IMAGE=NATIVE, VLLM_CACHE_ROOT=str(folder / "cache"))
    yield found
    found.process.kill()
    found.process.wait(PATIENCE)


def test_a_server_counts_the_pictures_of_a_prompt_in_its_usage_and_metrics(served: Served) -> None:
    url = f"{served.url}/v1/chat/completions"
    body = showing(max_tokens=4)
    _, plain = post(url, body)
    _, one = post(url, showing(png(512, 512), max_tokens=4))
    before = metric(served.url, "vllm:prompt_tokens_total", model_name="tiny")
    status, both = post(url, showing(png(512, 512), png(256, 320), max_tokens=4))
    assert status == 200
    words = plain["usage"]["prompt_tokens"]
    assert one["usage"]["prompt_tokens"] == words + 16 * 16 + 2
    assert both["usage"]["prompt_tokens"] == words + 16 * 16 + 2 + 8 * 10 + 2
    counted = metric(served.url, "vllm:prompt_tokens_total", model_name="tiny") - before
    assert counted == both["usage"]["prompt_tokens"]


def test_more_pictures_than_the_flag_allows_are_refused_by_the_server(served: Served) -> None:
    small = png(32, 32)
    status, answer = post(f"{served.url}/v1/chat/completions", showing(small, small, small))
    assert (status, answer["error"]["type"]) == (400, "BadRequestError")
    assert answer["error"]["message"] == "At most 2 image(s) may be provided in one prompt."


def test_a_picture_that_the_context_of_the_text_config_cannot_hold_is_refused(served: Served) -> None:
    status, answer = post(f"{served.url}/v1/chat/completions", showing(png(1024, 1024)))
    assert status == 400
    assert "maximum context length is 1024 tokens" in answer["error"]["message"]


def test_another_picture_has_another_answer_and_the_same_one_the_same(served: Served) -> None:
    def said(seed: int) -> str:
        _, answer = post(f"{served.url}/v1/chat/completions", showing(png(64, 64, seed), max_tokens=12))
        return str(answer["choices"][0]["message"]["content"])

    assert said(1) == said(1) != said(2)


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (512, 512, 256),
        (1000, 600, 31 * 19),
        (64, 64, 64),  # made 256 x 256: what is smaller is enlarged
        (100, 300, 5 * 14),
        (8192, 4096, 181 * 90),  # and what has more than 16.8 million pixels made smaller
    ],
)
def test_a_picture_counts_what_qwens_processor_makes_of_it(width: int, height: int, tokens: int) -> None:
    assert EYES.tokens(width, height) == tokens


@given(st.integers(16, 4096), st.integers(16, 4096), st.integers(1, 16))
def test_what_the_preflight_reckons_for_pictures_is_never_too_little(
    width: int, height: int, count: int
) -> None:
    if max(width, height) <= 200 * min(width, height):
        seen = asked(showing(*[png_of(width, height)] * count), room=10**7).prompt_tokens
        words = asked(showing()).prompt_tokens
        assert seen - words <= Images(width=width, height=height, count=count).tokens


def png_of(width: int, height: int) -> str:
    """Only what the stand-in reads: a picture of this size takes time to paint."""
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0)
    return "data:image/png;base64," + base64.b64encode(head).decode()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:image/png;base64,!!!!", "base64"),
        (
            "data:image/png;base64," + base64.b64encode(b"GIF89a" + bytes(60)).decode(),
            "cannot identify image file",
        ),
        ("data:image/png;base64,", "cannot identify image file"),
        (png_of(0, 5), "cannot identify image file"),
        (png_of(16, 4096), "aspect ratio must be smaller than 200, got 256.0"),
        ("data:image/png,abc", "Only base64 data URLs are supported"),
        ("data:image/png", "missing ',' separator"),
        ("https://example.com/a.png", "host example.com: this server has no network"),
        ("file:///etc/passwd", "--allowed-local-media-path"),
        ("picture.png", "either a HTTP, data or file URL"),
    ],
)
def test_what_is_no_picture_or_lies_elsewhere_is_refused(url: str, words: str) -> None:
    assert words in refusal(showing(url))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "video_url", "video_url": {"url": "x"}}, "At most 0 video(s)"),
        ({"type": "input_audio", "input_audio": {}}, "At most 0 audio(s)"),
        ({"type": "image_url"}, "Missing 'image_url'"),
        ({"type": "image_url", "image_url": {"url": 5}}, "Missing 'image_url'"),
        ({"type": "smell"}, "Unknown part type: smell"),
        ("text", "Unknown part type: None"),
    ],
)
def test_other_parts_are_refused_by_their_kind(part: Any, words: str) -> None:
    assert words in refusal(chat(messages=[{"role": "user", "content": [part]}]))


def test_pictures_of_all_turns_count_against_limit_and_context() -> None:
    turn = showing(png(512, 512))["messages"][0]
    talk = chat(messages=[turn, {"role": "assistant", "content": "A line."}, turn], max_tokens=10)
    assert asked(talk).prompt_tokens > 2 * 258
    assert "your request has 5" in refusal(talk, room=500)
    assert "At most 1 image(s)" in refusal(talk, Eyes(32, 65536, 16777216, limit=1))


def test_a_text_model_takes_no_picture() -> None:
    assert refusal(showing(png(8, 8)), None) == "At most 0 image(s) may be provided in one prompt."


def test_a_prompt_may_hold_as_many_pictures_as_vllm_allows_unless_a_flag_says_otherwise(seeing: Path) -> None:
    def limit(given: dict[str, Any] | None) -> int:
        eyes = read_eyes(seeing, given)
        assert eyes is not None
        return eyes.limit

    assert limit(None) == limit({"video": 1}) == 999
    assert limit({"image": 3}) == limit({"image": {"count": 3, "width": 512, "height": 512}}) == 3
    assert limit({"image": 0}) == 0


def test_the_checkpoints_own_processor_says_how_pictures_are_counted(seeing: Path, tmp_path: Path) -> None:
    eyes = read_eyes(seeing, None)
    assert eyes == EYES
    assert read_eyes(write_checkpoint(tmp_path / "text", seed=1), None) is None
    shutil.copytree(seeing, tmp_path / "coarse")
    path = tmp_path / "coarse/preprocessor_config.json"
    path.write_text(
        json.dumps(
            json.loads(path.read_text())
            | {"patch_size": 32, "size": {"shortest_edge": 0, "longest_edge": 10**9}}
        )
    )
    coarse = read_eyes(tmp_path / "coarse", None)
    assert coarse is not None
    assert coarse.tokens(512, 512) == math.prod((8, 8))


def test_a_model_with_a_vision_tower_needs_its_processors_configuration(
    seeing: Path, tmp_path: Path, call: Call
) -> None:
    shutil.copytree(seeing, tmp_path / "blind")
    (tmp_path / "blind/preprocessor_config.json").unlink()
    refused = call(main, "serve", tmp_path / "blind", silicon=TRN2, LOCAL_IMAGE=NATIVE)
    assert refused.returncode == 1
    assert "Can't load image processor for" in refused.stderr


@pytest.mark.parametrize("limit", ["image=2", "[1]", "2"])
def test_a_limit_that_is_no_json_object_is_refused_by_the_command_line(call: Call, limit: str) -> None:
    refused = call(main, "serve", "model", "--limit-mm-per-prompt", limit, LOCAL_IMAGE=NATIVE)
    assert refused.returncode == 2
    assert f"argument --limit-mm-per-prompt: Value {limit} cannot be converted" in refused.stderr
