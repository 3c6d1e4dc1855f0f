"""A token server of its own process that knows the truth: every write is stamped with CLOCK_MONOTONIC, which
all processes of a machine share.

Answers are numbered: `usage.prompt_tokens` carries the number, so that a client's sample finds its truth.
All bytes of a write are ready before its stamp is taken. Run as `python -m benchmarks.truth --knob value`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.model import NotMeasured

START_SECONDS = 30.0
# As long as what a vLLM server sends for a token.
CHUNK = (
    '{"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1700000000,'
    '"model":"m","choices":[%s],"usage":%s}'
)
USAGE = '{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}'
CHOICE = '{"index":0,"delta":{"content":"%s"},"logprobs":null,"finish_reason":null}'
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
# Of whatever else is asked: tools look for the model before they begin.
LIST = b'{"object":"list","data":[{"id":"m","object":"model","created":1700000000,"owned_by":"truth"}]}'
MODELS = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(LIST),
    LIST,
)
NOTHING = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True)
class Knobs:
    """Seconds. freeze_after counts from the first request; the whole server stands still then."""

    ttft: float = 0.1
    itl: float = 0.01
    tokens_a_chunk: int = 1
    early_role_chunk: bool = True
    freeze_after: float = 0.0
    freeze_seconds: float = 0.0


@dataclass
class Truth:
    """One answer. asked: when its request was complete. writes: (stamp, tokens) of each write with text."""

    asked: float
    writes: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    url: str
    file: Path
    process: subprocess.Popen[str]

    def truths(self) -> list[Truth]:
        """Ends the server and reads what it did; the number of an answer is its index."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        rows = json.loads(self.file.read_text())
        return [Truth(row["asked"], [(stamp, tokens) for stamp, tokens in row["writes"]]) for row in rows]


class Answering(asyncio.Protocol):
    def __init__(self, knobs: Knobs, truths: list[Truth]) -> None:
        self.knobs, self.truths = knobs, truths
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank:
            return
        lines = head.decode().lower().split("\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
        if len(body) < length:
            return
        self.received = b""
        if not lines[0].startswith("post /v1/"):
            self.transport.write(MODELS if lines[0].startswith("get") else NOTHING)
            return
        asked = json.loads(body)
        self.answer(asked.get("max_tokens") or asked.get("max_completion_tokens") or 1)

    def answer(self, total: int) -> None:
        loop = asyncio.get_running_loop()
        if not self.truths and self.knobs.freeze_seconds:
            loop.call_later(self.knobs.freeze_after, time.sleep, self.knobs.freeze_seconds)
        truth = Truth(time.monotonic())
        number = len(self.truths)
        self.truths.append(truth)
        self.transport.write(HEAD)
        if self.knobs.early_role_chunk:
            role = CHOICE.replace('"content":"%s"', '"role":"assistant","content":""')
            self.transport.write(event(CHUNK % (role, USAGE % (number, number, 0))))
        loop.call_at(truth.asked + self.knobs.ttft, self.token, truth, number, 0, total)

    def token(self, truth: Truth, number: int, sent: int, total: int) -> None:
        if self.transport.is_closing():
            return
        new = min(self.knobs.tokens_a_chunk, total - sent)
        sent += new
        data = event(CHUNK % (CHOICE % (" tok" * new), USAGE % (number, number + sent, sent)))
        truth.writes.append((time.monotonic(), new))
        self.transport.write(data)
        if sent < total:
            due = truth.writes[0][0] + self.knobs.itl * sent
            asyncio.get_running_loop().call_at(due, self.token, truth, number, sent, total)
            return
        self.transport.write(event(CHUNK % ("", USAGE % (number, number + sent, sent))) + event("[DONE]"))
        self.transport.write(b"0\r\n\r\n")


def event(data: str) -> bytes:
    text = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


async def serve(knobs: Knobs, file: Path) -> None:
    truths: list[Truth] = []
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    # A frozen server must not lose connections: they wait in the kernel.
    server = await loop.create_server(lambda: Answering(knobs, truths), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    file.write_text(json.dumps([asdict(truth) for truth in truths]))


@contextmanager
def truth_server(folder: Path, **knobs: Any) -> Iterator[Server]:
    """A server in a process of its own, until the end of the block. Raises NotMeasured.

    TRAINYARD_BENCH_PIN=1 gives it a core of its own, and the others to whoever asks it, us and peers alike:
    else the scheduler may put both on one, and what the server waits for is charged to the client.
    """
    file = folder / f"truth-{time.monotonic_ns()}.json"
    words = [word for name, value in knobs.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.truth", "--file", str(file), *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    cores = os.sched_getaffinity(0)
    if os.environ.get("TRAINYARD_BENCH_PIN") == "1" and len(cores) > 1:
        os.sched_setaffinity(process.pid, {max(cores)})
        os.sched_setaffinity(0, cores - {max(cores)})
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise NotMeasured("the truth server did not start; see its traceback above")
        with socket.create_connection(("127.0.0.1", int(port)), timeout=START_SECONDS):
            pass
        yield Server(f"http://127.0.0.1:{port}", file, process)
    finally:
        os.sched_setaffinity(0, cores)
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path, required=True)
    for one in fields(Knobs):
        kind = type(one.default)
        parser.add_argument(
            f"--{one.name.replace('_', '-')}",
            type=(lambda text: text == "True") if kind is bool else kind,
            default=one.default,
        )
    given = vars(parser.parse_args())
    file = given.pop("file")
    asyncio.run(serve(Knobs(**given), file))


if __name__ == "__main__":
    main()
