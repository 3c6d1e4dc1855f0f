"""The server's protocol: answers, streams, errors, metrics; one server for all of these."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import aiohttp
import pytest

from .clients import Stream, chat, get, metric, post, stream, until
from .conftest import Served, start


@pytest.fixture(scope="module")
def served(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    command = ["optimum-cli", "neuron", "serve", "-m", exported, "--served-model-name", "tiny"]
    server = start(
        [*command, "--host", "0.0.0.0"], tmp_path_factory.mktemp("served"), LOCAL_POD_IP="127.67.1.5"
    )
    yield server
    assert server.stop() == 0


async def one(served: Served, body: dict[str, Any], path: str = "chat/completions") -> Stream:
    async with aiohttp.ClientSession() as session:
        return await stream(session, f"{served.url}/v1/{path}", body)


def test_all_interfaces_means_the_address_of_the_pod(served: Served) -> None:
    assert served.url.startswith("http://127.67.1.5:")
    assert get(f"{served.url}/health") == ""


def test_models_are_listed_under_their_served_name(served: Served) -> None:
    cards = json.loads(get(f"{served.url}/v1/models"))["data"]
    assert [(card["id"], card["max_model_len"]) for card in cards] == [("tiny", 1024)]
    assert json.loads(get(f"{served.url}/version")) == {"version": "0.11.0"}


async def test_a_chat_stream_opens_with_the_role_and_ends_with_done(served: Served) -> None:
    received = await one(served, chat(max_tokens=6))
    deltas = [chunk["choices"][0]["delta"] for chunk in received.chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["finish_reason"] for chunk in received.chunks] == [None] * 6 + ["length"]
    assert len(received.text.split()) == 6
    assert received.done


async def test_usage_comes_in_a_last_chunk_or_in_every_chunk(served: Served) -> None:
    counted = await one(served, chat(max_tokens=4, stream_options={"include_usage": True}))
    assert counted.chunks[-1]["choices"] == []
    assert counted.chunks[-1]["usage"]["completion_tokens"] == 4
    assert all("usage" not in chunk for chunk in counted.chunks[:-1])
    options = {"include_usage": True, "continuous_usage_stats": True}
    always = await one(served, chat(max_tokens=4, stream_options=options))
    assert [chunk["usage"]["completion_tokens"] for chunk in always.chunks][-2:] == [4, 4]


async def test_the_same_request_has_the_same_answer_streamed_or_not(served: Served) -> None:
    streamed = await one(served, chat(max_tokens=20))
    status, whole = post(f"{served.url}/v1/chat/completions", chat(max_tokens=20))
    assert status == 200
    assert whole["choices"][0]["message"]["content"] == streamed.text
    warm = {"temperature": 1.0, "max_tokens": 20}
    other = [post(f"{served.url}/v1/chat/completions", chat(seed=seed, **warm))[1] for seed in (1, 1, 2)]
    texts = [answer["choices"][0]["message"]["content"] for answer in other]
    assert texts[0] == texts[1] != texts[2]


def test_prompts_are_counted_alike_by_usage_and_tokenize(served: Served) -> None:
    text = "a few words, and one that is extraordinarily-long-and-hyphenated"
    _, answer = post(f"{served.url}/v1/completions", {"model": "tiny", "prompt": text, "max_tokens": 3})
    _, counted = post(f"{served.url}/tokenize", {"model": "tiny", "prompt": text})
    assert answer["usage"] == {
        "prompt_tokens": counted["count"],
        "completion_tokens": 3,
        "total_tokens": counted["count"] + 3,
        "prompt_tokens_details": None,
    }


async def test_a_stop_string_ends_the_text_before_itself_even_across_tokens(served: Served) -> None:
    whole = await one(served, chat(max_tokens=40, ignore_eos=True))
    words = whole.text.split(" ")
    stop = f"{words[5][-2:]} {words[6][:2]}"
    expected = whole.text[: whole.text.index(stop)]
    stopped = await one(served, chat(max_tokens=40, ignore_eos=True, stop=[stop]))
    assert stopped.text == expected
    assert stopped.finish == "stop"
    assert stopped.chunks[-1]["choices"][0]["stop_reason"] == stop


async def test_text_ends_by_itself_unless_told_to_go_on(served: Served) -> None:
    ended = await one(served, chat(max_tokens=900))
    assert ended.finish == "stop"
    length = len(ended.text.split())
    assert 24 <= length <= 384
    longer = await one(served, chat(max_tokens=length + 10, ignore_eos=True))
    assert (longer.finish, len(longer.text.split())) == ("length", length + 10)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (chat(model="other"), 404, "The model `other` does not exist."),
        (chat(max_tokens=5000), 400, "maximum context length is 1024"),
        (chat(messages=[{"role": "user", "content": "word " * 2000}]), 400, "Please reduce the length"),
        (chat(max_tokens=0), 400, "max_tokens must be at least 1"),
        (chat(n=2), 400, "n must be 1"),
        (chat(temperature=-1), 400, "temperature must be non-negative"),
        (chat(top_p="high"), 400, "top_p must be a number"),
        (chat(stream_options={"include_usage": True}), 400, "Stream options can only be defined"),
        ({"model": "tiny"}, 400, "'messages'"),
        (b"{not json", 400, "JSON decode error"),
        (b"[]", 400, "valid dictionary"),
    ],
)
def test_bad_requests_are_refused_as_vllm_does(served: Served, body: Any, status: int, message: str) -> None:
    answered, answer = post(f"{served.url}/v1/chat/completions", body)
    assert answered == status == answer["error"]["code"]
    assert message in answer["error"]["message"]
    assert set(answer["error"]) == {"message", "type", "param", "code"}


async def test_many_streams_share_the_batch_and_the_rest_waits(served: Served) -> None:
    """Batch 4: of 12 requests 4 run and 8 wait, and all that stay end whole."""

    def counted() -> tuple[float, float]:
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
        running, waiting = (metric(served.url, name) for name in names)
        return running, waiting

    async with aiohttp.ClientSession() as session:
        url = f"{served.url}/v1/chat/completions"

        def ask(count: int, tokens: int) -> list[asyncio.Task[Stream]]:
            body = chat(max_tokens=tokens, ignore_eos=True)
            return [asyncio.create_task(stream(session, url, body)) for _ in range(count)]

        long = ask(4, 900)  # they keep their slots for as long as anybody has to look
        await until(lambda: counted() == (4, 0))
        short = ask(8, 60)
        await until(lambda: counted() == (4, 8))
        for each in long:
            each.cancel()
        received = await asyncio.gather(*short)
    assert all(answer.done and len(answer.text.split()) == 60 for answer in received)
    await until(lambda: counted() == (0, 0))


async def test_metrics_count_what_was_served(served: Served) -> None:
    def read() -> list[float]:
        return [
            metric(served.url, "vllm:generation_tokens_total"),
            metric(served.url, "vllm:request_success_total", finished_reason="length"),
            metric(served.url, "vllm:time_to_first_token_seconds_count"),
            metric(served.url, "vllm:e2e_request_latency_seconds_bucket", le="+Inf"),
            metric(served.url, "vllm:inter_token_latency_seconds_count"),
        ]

    before = read()
    await one(served, chat(max_tokens=10, ignore_eos=True))
    assert [now - then for now, then in zip(read(), before, strict=True)] == [10, 1, 1, 1, 9]
    assert metric(served.url, "vllm:num_requests_running") == 0


async def test_answers_are_counted_by_path_and_status_as_by_vllms_instrumentator(served: Served) -> None:
    def read(path: str, status: str, method: str = "POST") -> float:
        try:
            return metric(served.url, "http_requests_total", handler=path, status=status, method=method)
        except AssertionError:  # a series begins with its first answer
            return 0.0

    path = "/v1/chat/completions"
    before = read(path, "2xx"), read(path, "4xx"), read("none", "4xx", "GET")
    await one(served, chat(max_tokens=1))
    assert post(f"{served.url}{path}", b"{")[0] == 400
    with pytest.raises(HTTPError):
        get(f"{served.url}/nowhere")
    after = read(path, "2xx"), read(path, "4xx"), read("none", "4xx", "GET")
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1]
    shown = get(f"{served.url}/metrics")
    assert 'handler="/metrics"' not in shown
    assert re.search(r"^process_start_time_seconds \d{10}", shown, re.MULTILINE)


def test_only_the_reasons_of_this_release_are_there(served: Served) -> None:
    shown = get(f"{served.url}/metrics")  # 0.11
    assert set(re.findall(r'finished_reason="(\w+)"', shown)) == {"stop", "length", "abort"}


async def test_a_client_that_goes_away_frees_its_slot(served: Served) -> None:
    def aborts() -> float:
        return metric(served.url, "vllm:request_success_total", finished_reason="abort")

    before = aborts()
    async with aiohttp.ClientSession() as session:
        body = chat(max_tokens=900, ignore_eos=True, stream=True)
        answer = await session.post(f"{served.url}/v1/chat/completions", json=body)
        await answer.content.readline()
        answer.close()
    await until(lambda: aborts() > before)
    assert metric(served.url, "vllm:num_requests_running") == 0


def test_the_log_says_when_startup_is_complete(served: Served) -> None:
    assert "Application startup complete." in served.log()
    assert "Loading sharded checkpoint from" in served.log()
    assert "Call compiler" not in served.log()
