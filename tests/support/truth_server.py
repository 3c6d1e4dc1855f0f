"""A token server that knows the truth: it stamps every write with the monotonic clock, and fails as told.

Runs in a thread of the test process: its stamps and the reader's are of one clock and can be compared.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from local.shims.server.metrics import Metrics


@dataclass
class Behaviour:
    """faults: what happens to the nth request is `faults[n % len(faults)]`; "" is a good answer."""

    ttft: float = 0.02
    itl: float = 0.004
    tokens_a_chunk: int = 1
    early_role_chunk: bool = True
    usage: str = "continuous"  # or "final", or "none"
    faults: tuple[str, ...] = ("",)
    names: tuple[str, ...] = ("m",)
    text: str = "tok "
    same_answer: bool = True


@dataclass
class Truth:
    """What the server did for one request. Stamps are of `time.monotonic`, taken right before each write."""

    fault: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    asked: float = 0.0
    writes: list[tuple[float, int]] = field(default_factory=list)  # (stamp, tokens)


class TruthServer:
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.truths: list[Truth] = []
        self.connections = 0
        self.url = ""
        self._count = 0
        self.metrics = Metrics("m", 4096)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                length = next(
                    (
                        int(line.split(":")[1])
                        for line in head.split("\r\n")
                        if line.lower().startswith("content-length")
                    ),
                    0,
                )
                body = json.loads(await reader.readexactly(length)) if length else {}
                if method == "GET":
                    self._get(path, writer)
                else:
                    await self._generate(body, "chat" in path, writer)
                await writer.drain()
                if "connection: close" in head.lower():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _get(self, path: str, writer: asyncio.StreamWriter) -> None:
        kind, status, text = "text/plain", "200 OK", ""
        if path == "/v1/models":
            kind = "application/json"
            text = json.dumps({"object": "list", "data": [{"id": name} for name in self.behaviour.names]})
        elif path == "/metrics":
            text = self.metrics.render()
        elif path != "/health":
            status = "404 Not Found"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
        )

    async def _generate(self, body: dict[str, Any], chat: bool, writer: asyncio.StreamWriter) -> None:
        how = self.behaviour
        truth = Truth(how.faults[self._count % len(how.faults)], body, time.monotonic())
        self._count += 1
        self.truths.append(truth)
        fault = truth.fault
        if fault == "http_5xx":
            writer.write(b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\noops")
            return
        if fault == "http_4xx":
            writer.write(b"HTTP/1.1 429 Slow Down\r\nContent-Length: 0\r\n\r\n")
            return
        if fault == "malformed":
            writer.write(b"garbage garbage\r\n\r\n")
            raise ConnectionError
        if fault == "hang":
            await asyncio.sleep(3600)
        stream = body.get("stream", False)
        kind = "text/event-stream; charset=utf-8" if stream else "application/json"
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        if fault == "empty":
            writer.write(b"0\r\n\r\n")
            return
        total = body["max_tokens"]
        prompt = len(json.dumps(body.get("messages") or body.get("prompt")).split())

        def usage(tokens: int) -> dict[str, int]:
            return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}

        def send(document: object) -> None:
            data = document if isinstance(document, str) else json.dumps(document)
            event = f"data: {data}\n\n".encode() if stream else data.encode()
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))

        def choice(text: str, finish: str | None = None) -> dict[str, Any]:
            part = {"delta": {"content": text}} if chat else {"text": text}
            return {"index": 0, **part, "finish_reason": finish}

        if not stream:
            await asyncio.sleep(how.ttft + how.itl * (total - 1))
            answer = how.text * total + ("" if how.same_answer else str(self._count))
            part = {"message": {"role": "assistant", "content": answer}} if chat else {"text": answer}
            send({"choices": [{"index": 0, **part, "finish_reason": "length"}], "usage": usage(total)})
            writer.write(b"0\r\n\r\n")
            now = time.monotonic()
            truth.writes = [(now - how.itl * (total - 1), 1), (now, total - 1)]
            self._observe(truth)
            return
        if how.early_role_chunk and chat:
            send({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        await asyncio.sleep(how.ttft)
        sent = 0
        while sent < total:
            if sent:
                await asyncio.sleep(how.itl * how.tokens_a_chunk)
            tokens = min(how.tokens_a_chunk, total - sent)
            sent += tokens
            suffix = "" if how.same_answer or sent < total else str(self._count)
            chunk: dict[str, Any] = {"choices": [choice(how.text * tokens + suffix)]}
            if how.usage == "continuous" and fault != "no_usage":
                chunk["usage"] = usage(sent)
            truth.writes.append((time.monotonic(), tokens))
            send(chunk)
            if fault == "cut" and sent >= total // 2:
                await writer.drain()
                raise ConnectionError
            if fault in ("error_event", "error_hang") and sent >= total // 2:
                send({"error": {"message": "engine died", "code": 500}})
                if fault == "error_hang":
                    await asyncio.sleep(3600)
                return
        send({"choices": [choice("", "length")]})
        if how.usage != "none" and fault != "no_usage":
            send({"choices": [], "usage": usage(sent)})
        if fault != "no_done":
            send("[DONE]")
        writer.write(b"0\r\n\r\n")
        self._observe(truth)

    def _observe(self, truth: Truth) -> None:
        """Of whole answers, for /metrics."""
        shown, stamps = self.metrics, [stamp for stamp, _ in truth.writes]
        shown.success.inc(1, finished_reason="length")
        shown.first_token.observe(stamps[0] - truth.asked)
        shown.end_to_end.observe(time.monotonic() - truth.asked)
        for (before, _), (now, tokens) in pairwise(truth.writes):
            for _ in range(tokens):
                shown.inter_token.observe((now - before) / tokens)


@contextmanager
def truth_server(
    behaviour: Behaviour | None = None, *, certificate: tuple[Path, Path] | None = None, **knobs: Any
) -> Iterator[TruthServer]:
    """A running server on a free loopback port. certificate: its file and its key's, for TLS."""
    server = TruthServer(behaviour or Behaviour(**knobs))
    loop = asyncio.new_event_loop()
    sealed = None
    if certificate:
        sealed = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        sealed.load_cert_chain(*certificate)
    # So many may have to wait while the whole process stands still: who finds no place comes a second late.
    opened = asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=sealed, backlog=1024)
    listener = loop.run_until_complete(opened)
    server.url = f"{'https' if sealed else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:

        async def stop() -> None:
            listener.close()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
