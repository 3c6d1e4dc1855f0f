"""One generation over HTTP, timed from outside: connect, ask, read the answer as it arrives.

Works the same with plain sockets (warm-up) and with gevent's (under Locust, which patches `socket`). Every
request has a connection of its own: a Service balances connections, and a kept one would measure one pod.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from trainyard.bench.http1 import MalformedResponse, Response
from trainyard.bench.samples import Sample
from trainyard.bench.sse import Events

RECEIVE_BYTES = 65536
DETAIL_CHARACTERS = 300


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url, self.payload, self.timeout, self.clock = url, payload, timeout, clock
        self.started = clock()
        self.connected: float | None = None
        self.first: float | None = None  # the first chunk with text
        self.ended: float | None = None
        self.status = 0
        self.text = ""
        self.usage: dict[str, Any] | None = None
        self.finish_reason = ""
        self.error = ""
        self.detail = ""
        self._texts: list[tuple[float, int]] = []  # (stamp, characters) of every chunk with text
        self._counts: list[tuple[float, int]] = []  # (stamp, new tokens) where the server counts as it goes
        self._counted = 0
        self._done = False

    @property
    def ok(self) -> bool:
        return self.ended is not None and not self.error

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
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        deadline = self.started + self.timeout
        try:
            connection = socket.create_connection((parts.hostname or "", port), timeout=self.timeout)
        except OSError as error:  # a connection that times out is as good as none
            self._fail("connect", str(error))
            return
        try:
            if parts.scheme == "https":
                context = ssl.create_default_context()
                connection = context.wrap_socket(connection, server_hostname=parts.hostname)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connected = self.clock()
            connection.sendall(self._request(parts.path or "/", parts.netloc))
            self._read(connection, deadline)
        except TimeoutError:
            self._fail("timeout", f"no complete answer within {self.timeout:g} s")
        except MalformedResponse as error:
            self._fail("malformed", str(error))
        except OSError as error:
            self._fail("cut" if self.connected else "connect", str(error))
        finally:
            connection.close()

    def _request(self, path: str, host: str) -> bytes:
        body = json.dumps(self.payload).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Accept: text/event-stream, application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + body

    def _read(self, connection: socket.socket, deadline: float) -> None:
        response, events = Response(), Events()
        whole = bytearray()  # of an answer that is no event stream
        while not response.complete:
            left = deadline - self.clock()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            data = connection.recv(RECEIVE_BYTES)
            now = self.clock()
            body = response.feed(data) if data else b""
            self.status = response.status
            kind = response.headers.get("content-type", "")
            if self.status == 200 and kind.startswith("text/event-stream"):
                for event in events.feed(body):
                    self._take_event(event, now)
                if self._done or self.error:
                    break
            else:
                whole += body
            if not data:
                response.end()
                break
        self.ended = self.clock()
        self._conclude(response, bytes(whole))

    def _take_event(self, event: bytes, now: float) -> None:
        if event == b"[DONE]":
            self._done = True
            return
        chunk = self._parse(event)
        if chunk.get("error"):
            self._fail("error_event", json.dumps(chunk["error"]))
        self._take_choices(chunk, now)
        self._take_usage(chunk, now)

    def _take_choices(self, chunk: Mapping[str, Any], now: float) -> None:
        for choice in chunk.get("choices") or ():
            text = text_of(choice)
            if text:
                if self.first is None:
                    self.first = now
                self.text += text
                self._texts.append((now, len(text)))
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _take_usage(self, chunk: Mapping[str, Any], now: float) -> None:
        usage = chunk.get("usage")
        if not isinstance(usage, dict) or not isinstance(usage.get("completion_tokens"), int):
            return
        self.usage = usage
        new = usage["completion_tokens"] - self._counted
        if chunk.get("choices") and new > 0:  # the last chunk repeats the total and has no choices
            self._counts.append((now, new))
            self._counted += new

    def _conclude(self, response: Response, whole: bytes) -> None:
        """Name what is wrong with an answer that ended, the most telling first."""
        if self.error:
            return
        if not response.status or (not response.complete and not self._done):
            self._fail("cut", f"the connection ended after {len(self._texts)} chunks of text")
        elif response.status != 200:
            kind = "http_5xx" if response.status >= 500 else "http_4xx"
            self._fail(kind, f"{response.status}: {whole.decode('utf-8', 'replace')}")
        elif self.payload.get("stream"):
            if not self.text:
                self._fail("empty", "200, but no text")
            elif not self._done:
                self._fail("no_done", "the stream ended without [DONE]")
            elif self.usage is None:
                self._fail("no_usage", "the stream ended without token counts")
        else:
            self._conclude_whole(whole)

    def _conclude_whole(self, whole: bytes) -> None:
        """An answer that was asked for in one piece."""
        if not whole:
            self._fail("empty", "200, but no body")
            return
        answer = self._parse(whole)
        for choice in answer.get("choices") or ():
            self.text += text_of(choice)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        usage = answer.get("usage")
        self.usage = usage if isinstance(usage, dict) else None
        if not self.text:
            self._fail("empty", "200, but no text")
        elif self.usage is None:
            self._fail("no_usage", "no token counts")

    def _parse(self, data: bytes) -> dict[str, Any]:
        """A JSON object, or an empty one and a failure."""
        try:
            document = json.loads(data)
        except ValueError:
            document = None
        if isinstance(document, dict):
            return document
        self._fail("malformed", f"not a JSON object: {data[:80]!r}")
        return {}

    def _fail(self, kind: str, detail: str) -> None:
        if not self.error:
            self.error, self.detail = kind, detail[:DETAIL_CHARACTERS]
        if self.ended is None:
            self.ended = self.clock()

    def tokens(self) -> list[tuple[float, int]]:
        """(stamp, tokens) of every chunk that brought tokens.

        Counts sent along with the chunks; else the final count, spread over the chunks by their characters.
        """
        if self._counts or not self._texts:
            return self._counts
        total = (self.usage or {}).get("completion_tokens")
        if not isinstance(total, int):
            return []
        if total == len(self._texts) + 1 and self.finish_reason == "stop":
            total -= 1  # the end-of-sequence token is counted and has no text
        if total == len(self._texts):
            return [(stamp, 1) for stamp, _ in self._texts]
        characters = sum(size for _, size in self._texts)
        seen, given, spread = 0, 0, []
        for stamp, size in self._texts:
            seen += size
            new = round(total * seen / characters) - given
            given += new
            if new:
                spread.append((stamp, new))
        return spread

    def sample(
        self,
        *,
        arm: str,
        pair: int | None = None,
        run: int = 0,
        user: int = 0,
        intended: float | None = None,
    ) -> Sample:
        """What goes into the record. intended: on the same clock as `started`."""

        def since(stamp: float | None) -> float | None:
            return None if stamp is None else round(stamp - self.started, 7)

        tokens = self.tokens()
        usage = self.usage or {}
        return Sample(
            arm=arm,
            pair=pair,
            run=run,
            url=self.url,
            user=user,
            started=round(self.started, 7),
            intended=0.0 if intended is None else round(intended - self.started, 7),
            connected=since(self.connected),
            ttft=since(self.first),
            e2e=since(self.ended),
            status=self.status,
            prompt_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
            chunks=len(self._texts),
            chunk_times=tuple(round(stamp - self.started, 7) for stamp, _ in tokens),
            chunk_tokens=tuple(count for _, count in tokens),
            ok=self.ok,
            error=self.error,
            detail=self.detail,
            finish_reason=self.finish_reason,
        )


def text_of(choice: Mapping[str, Any]) -> str:
    """What a chunk or an answer adds, of whatever kind. The early chunk that only names the role: nothing."""
    part = choice.get("delta") or choice.get("message") or choice
    for key in ("content", "text", "reasoning_content", "reasoning"):
        if part.get(key):
            return str(part[key])
    return json.dumps(part["tool_calls"]) if part.get("tool_calls") else ""
