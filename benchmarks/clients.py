"""How the peers read a stream: `python -m benchmarks.clients PATH URL STREAMS SECONDS TOKENS`.

`aiohttp` is the path of `vllm bench serve`: aiohttp, events split at blank lines, json, TTFT at the first
chunk that has choices, a gap for every message. `httpx` is GuideLLM's: HTTP lines of httpx, json, TTFT at the
first content, `time.time`. Each is a closed loop. Prints one JSON object: cpu_seconds and rows of
`{"number", "started", "ttft", "gaps", "events", "tokens"}`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Row = dict[str, Any]


def body(tokens: int) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": "user", "content": "word " * 64}],
        "max_tokens": tokens,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }


async def messages(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Messages of a stream as vLLM's StreamedResponseHandler cuts them."""
    buffer = ""
    async for piece in pieces:
        buffer += piece.decode()
        while "\n\n" in buffer:
            message, buffer = buffer.split("\n\n", 1)
            if message := message.strip():
                yield message


async def aiohttp_path(url: str, streams: int, seconds: float, tokens: int) -> list[Row]:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=streams, limit_per_host=streams, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600)) as session:

        async def ask() -> Row:
            row: Row = {"ttft": None, "gaps": [], "events": 0, "tokens": 0, "started": time.monotonic()}
            started = last = time.perf_counter()
            async with session.post(url + "/v1/chat/completions", json=body(tokens)) as response:
                async for message in messages(response.content.iter_any()):
                    row["events"] += 1
                    data = message.removeprefix("data: ")
                    if data == "[DONE]":
                        continue
                    now, chunk = time.perf_counter(), json.loads(data)
                    if chunk["choices"]:
                        if row["ttft"] is None:
                            row["ttft"] = now - started
                        else:
                            row["gaps"].append(now - last)
                        last = now
                    if usage := chunk.get("usage"):
                        row["number"], row["tokens"] = usage["prompt_tokens"], usage["completion_tokens"]
            return row

        return await closed_loop(ask, streams, seconds)


async def httpx_path(url: str, streams: int, seconds: float, tokens: int) -> list[Row]:
    import httpx

    limits = httpx.Limits(max_connections=streams, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=600, limits=limits, trust_env=False) as client:

        async def ask() -> Row:
            row: Row = {"ttft": None, "gaps": [], "events": 0, "tokens": 0, "started": time.monotonic()}
            started = last = time.time()
            async with client.stream("POST", url + "/v1/chat/completions", json=body(tokens)) as response:
                async for line in response.aiter_lines():
                    now = time.time()
                    if not line.startswith("data:"):
                        continue
                    row["events"] += 1
                    data = line[5:].strip()
                    if data == "[DONE]":
                        continue
                    chunk = json.loads(data)
                    if any(choice["delta"].get("content") for choice in chunk["choices"]):
                        if row["ttft"] is None:
                            row["ttft"] = now - started
                        else:
                            row["gaps"].append(now - last)
                        last = now
                    if usage := chunk.get("usage"):
                        row["number"], row["tokens"] = usage["prompt_tokens"], usage["completion_tokens"]
            return row

        return await closed_loop(ask, streams, seconds)


async def closed_loop(ask: Callable[[], Awaitable[Row]], streams: int, seconds: float) -> list[Row]:
    end, rows = time.monotonic() + seconds, []

    async def user() -> None:
        while time.monotonic() < end:
            rows.append(await ask())

    await asyncio.gather(*(user() for _ in range(streams)))
    return rows


PATHS = {"aiohttp": aiohttp_path, "httpx": httpx_path}


def main() -> None:
    name, url, streams, seconds, tokens = sys.argv[1:]
    importlib.import_module(name)  # not on the clock
    before = time.process_time()
    rows = asyncio.run(PATHS[name](url, int(streams), float(seconds), int(tokens)))
    json.dump({"cpu_seconds": time.process_time() - before, "rows": rows}, sys.stdout)


if __name__ == "__main__":
    main()
