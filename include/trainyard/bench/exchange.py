"""One generation over HTTP, timed from outside: connect, ask, read the answer as it arrives.

Works the same with plain sockets (warm-up) and with gevent's (under Locust, see `hub`). Every request has a
connection of its own: a Service balances connections, and a kept one would measure one pod.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from trainyard.bench.answer import Answer
from trainyard.bench.http1 import MalformedResponse
from trainyard.bench.samples import Sample
from trainyard.bench.stamps import stamps
from trainyard.bench.tls import Sealed

RECEIVE_BYTES = 16384

Clock = Callable[[], float]


class Sink(Protocol):
    """What takes the bytes of a connection, an `Answer` as a rule."""

    def feed(self, data: bytes, now: float) -> bool:
        """True when nothing more has to be read."""

    def close(self) -> None:
        """The peer closed the connection."""


# Reads a connected socket into a sink until it needs no more, stamps of the given clock. Raises TimeoutError
# at the deadline (of that clock), OSError, MalformedResponse.
Reader = Callable[[socket.socket, Sink, float, Clock], None]


def read_blocking(connection: socket.socket, answer: Sink, deadline: float, clock: Clock) -> None:
    """The reader for plain sockets."""
    while True:
        left = deadline - clock()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        data = connection.recv(RECEIVE_BYTES)
        now = clock()
        if not data:
            answer.close()
            return
        if answer.feed(data, now):
            return


class Exchange:
    """One request and what came of it. `run` never raises for what a server or a network can do.

    Something else that interrupts it, such as Locust's kill at the end of a run, leaves it `censored` and is
    raised.
    """

    def __init__(
        self,
        url: str,
        payload: Mapping[str, Any],
        *,
        timeout: float,
        clock: Clock = time.monotonic,
        read: Reader = read_blocking,
    ) -> None:
        self.url, self.timeout, self.clock = url, timeout, clock
        self._read = read
        parts = urlsplit(url)
        self._host, self._tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        # All that can be done before the clock runs is done here.
        host = parts.netloc.rpartition("@")[2]
        self._request = _request(parts.path or "/", host, payload)
        self._answer = Answer(stream=bool(payload.get("stream")))
        self.started = clock()
        self.connected: float | None = None
        self.ended: float | None = None

    @property
    def ok(self) -> bool:
        return self.ended is not None and not self.error

    @property
    def first(self) -> float | None:
        """Stamp of the first chunk with text."""
        return self._answer.first

    @property
    def text(self) -> str:
        return self._answer.text

    @property
    def usage(self) -> dict[str, Any] | None:
        return self._answer.usage

    @property
    def finish_reason(self) -> str:
        return self._answer.finish_reason

    @property
    def error(self) -> str:
        return self._answer.error

    @property
    def detail(self) -> str:
        return self._answer.detail

    def run(self) -> Exchange:
        self.started = self.clock()
        try:
            self._run()
        except Exception as error:  # an answer of a shape that nobody promised
            self._fail("malformed", f"{type(error).__name__}: {error}")
        except BaseException as error:
            self._fail(
                "censored", f"stopped after {self.clock() - self.started:.3f} s: {type(error).__name__}"
            )
            raise
        return self

    def _run(self) -> None:
        deadline = self.started + self.timeout
        try:
            connection = _connect(self._host, self._port, self.timeout)
        except OSError as error:  # a connection that times out is as good as none
            self._fail("connect", str(error))
            return
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stamps().ask(connection)
            sink: Sink = self._answer
            if self._tls:
                sealed = sink = Sealed(connection, self._host, self._answer)
                sealed.shake_hands(deadline, self.clock)
                self.connected = self.clock()
                self._send(sealed.send)
                ended = sealed.feed(b"", self.connected)  # what came with the end of the handshake
            else:
                self.connected, ended = self.clock(), False
                self._send(connection.sendall)
            if not ended:
                self._read(connection, sink, deadline, self.clock)
            self.ended = self.clock() if self._answer.ended is None else self._answer.ended
            self._answer.conclude()
        except TimeoutError:
            self._fail("timeout", f"no complete answer within {self.timeout:g} s")
        except MalformedResponse as error:
            self._fail("malformed", str(error))
        except OSError as error:
            self._fail("cut" if self.connected else "connect", str(error))
        finally:
            connection.close()

    def _send(self, send: Callable[[bytes], object]) -> None:
        try:
            send(self._request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # perhaps it has answered without having read all: whoever reads finds out

    def _fail(self, kind: str, detail: str) -> None:
        self._answer.fail(kind, detail)
        if self.ended is None:
            self.ended = self.clock()

    def sample(
        self,
        *,
        arm: str,
        pair: int | None = None,
        run: int = 0,
        user: int = 0,
        turn: int = 0,
        intended: float | None = None,
    ) -> Sample:
        """What goes into the record. intended: on the same clock as `started`."""

        def since(stamp: float | None) -> float | None:
            return None if stamp is None else round(stamp - self.started, 7)

        answer = self._answer
        tokens = answer.tokens()
        return Sample(
            arm=arm,
            pair=pair,
            run=run,
            url=self.url,
            user=user,
            turn=turn,
            started=round(self.started, 7),
            intended=0.0 if intended is None else round(intended - self.started, 7),
            connected=since(self.connected),
            ttft=since(answer.first),
            e2e=since(self.ended),
            status=answer.status,
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.output_tokens,
            chunks=answer.chunks,
            chunk_times=tuple([stamp - self.started for stamp, _ in tokens]),
            chunk_tokens=tuple([count for _, count in tokens]),
            ok=self.ok,
            error=answer.error,
            detail=answer.detail,
            finish_reason=answer.finish_reason,
        )


def _connect(host: str, port: int, timeout: float) -> socket.socket:
    """Raises OSError. An address in digits goes by no resolver: gevent's is a pool of threads."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect((host, port))
        except BaseException:
            connection.close()
            raise
        return connection
    return socket.create_connection((host, port), timeout=timeout)


def _request(path: str, host: str, payload: Mapping[str, Any]) -> bytes:
    body = json.dumps(payload).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Accept: text/event-stream, application/json\r\nContent-Length: {len(body)}\r\n"
        "Accept-Encoding: identity\r\nConnection: close\r\n"  # who asks for no coding takes any
    )
    if key := os.environ.get("OPENAI_API_KEY"):  # where OpenAI's own clients look
        head += f"Authorization: Bearer {key}\r\n"
    head += "\r\n"
    return head.encode() + body
