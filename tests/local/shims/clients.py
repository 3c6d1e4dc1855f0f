"""A streaming client, and readers of what a server answers."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError

import aiohttp


def post(url: str, body: Any, **headers: str) -> tuple[int, Any]:
    """POST as JSON; bytes go as they are. Returns status and the decoded answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=120) as answer:
        return str(answer.read().decode())


def metric(url: str, name: str, **labels: str) -> float:
    """The value of one series; its labels must include these."""
    for line in get(f"{url}/metrics").splitlines():
        match = re.fullmatch(rf"{re.escape(name)}\{{(.*)\}} (\S+)", line)
        if match and all(f'{key}="{value}"' in match[1] for key, value in labels.items()):
            return float(match[2])
    raise AssertionError(f"no series {name} {labels}")


async def until(seen: Callable[[], bool]) -> None:
    """Looks again and again at what a server has come to."""
    async with asyncio.timeout(60):
        while True:
            if await asyncio.to_thread(seen):
                return
            await asyncio.sleep(0.02)


def chat(**fields: Any) -> dict[str, Any]:
    """A chat request for the served model."""
    return {"model": "tiny", "messages": [{"role": "user", "content": "Where does the train go?"}]} | fields


@dataclass
class Stream:
    """What arrived: the chunks, their text, and whether the end was announced."""

    status: int = 0
    chunks: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    done: bool = False

    @property
    def text(self) -> str:
        return "".join(
            choice["delta"].get("content", "") if "delta" in choice else choice["text"]
            for chunk in self.chunks
            for choice in chunk["choices"]
        )

    @property
    def finish(self) -> str | None:
        found = [choice["finish_reason"] for chunk in self.chunks for choice in chunk["choices"]]
        return found[-1] if found else None


async def stream(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Stream:
    """Read a stream to its end; raises when the connection is cut in the middle."""
    received = Stream()
    async with session.post(url, json=body | {"stream": True}) as answer:
        received.status = answer.status
        async for line in answer.content:
            if line == b"data: [DONE]\n":
                received.done = True
            elif line.startswith(b"data: "):
                received.chunks.append(json.loads(line[6:]))
    return received
