"""A proxy in front of an S3 server that fails on purpose: 5xx, resets, lost replies, cut and flipped
bodies."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Rule:
    """What to do to the next `times` requests of `method` whose path has `match` in it.

    kind: "status" (answer `status`, not forwarded), "reset" (close at once), "lost" (forward, then close
    instead of answering), "cut" (send half of the body), "flip" (flip a bit of the answer's body),
    "flip_sent" (flip one of the request's body), "trickle" (answer in small pieces), "hang" (say nothing),
    "half" (send half of the body, then no more), "" (nothing: a request that the rules after it do not meet).
    at: where in the body the bit is, from 0 to 1. least: bytes of the request's body, or of the range that is
    asked for, below which the rule does not apply.
    """

    kind: str
    method: str = "PUT"
    match: str = ""
    times: int = 1
    status: int = 503
    at: float = 0.5
    bit: int = 0
    least: int = 0


@dataclass
class Faulty:
    endpoint: str
    rules: list[Rule] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def take(self, method: str, path: str, size: int = 0) -> Rule | None:
        self.seen.append(f"{method} {path}")
        for rule in self.rules:
            if size < rule.least:
                continue
            if rule.times > 0 and rule.method == method and re.search(rule.match, path):
                rule.times -= 1
                return rule
        return None


@contextmanager
def faulty_s3(upstream: str) -> Iterator[Faulty]:
    target = urlsplit(upstream)
    lock, ended = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                rule = faulty.take(self.command, self.path, len(body) or self._asked())
            kind = rule.kind if rule else ""
            if kind == "flip_sent" and rule:
                body = _flipped(body, rule)
            if kind == "reset":
                return self._reset()
            if kind == "hang":
                ended.wait()
                return self._reset()
            if kind == "status" and rule:
                text = f"<Error><Code>SlowDown</Code><Message>{rule.status}</Message></Error>".encode()
                return self._answer(rule.status, [("Content-Type", "application/xml")], text)
            connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=120)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            content = reply.read()
            connection.close()
            if kind == "lost":
                return self._reset()
            if kind == "flip" and rule:
                content = _flipped(content, rule)
            return self._answer(
                reply.status,
                reply.getheaders(),
                content,
                cut=kind in ("cut", "half"),
                slowly=kind == "trickle",
                stays=kind == "half",
            )

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any

        def _asked(self) -> int:
            """Bytes of the range that is asked for."""
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            return int(found[2]) - int(found[1]) + 1 if found else 0

        def _answer(
            self,
            status: int,
            headers: list[Any],
            content: bytes,
            cut: bool = False,
            slowly: bool = False,
            stays: bool = False,
        ) -> None:
            self.send_response_only(status)
            length = str(len(content))
            for name, value in headers:
                if name.lower() == "content-length":
                    length = value  # of a HEAD
                elif name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                step = max(1, len(content) // 20) if slowly else max(1, len(content))
                for start in range(0, len(content) // 2 if cut else len(content), step):
                    end = min(start + step, len(content) // 2) if cut else start + step
                    self.wfile.write(content[start:end])
                    if slowly:
                        ended.wait(0.02)
            if cut:
                self.wfile.flush()
                if stays:
                    ended.wait()
                self._reset()

        def _reset(self) -> None:
            # Linger of zero: the peer sees a reset, not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            self.wfile = self.rfile = _Nowhere()  # type: ignore[assignment]

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # of a proxy that has no time right now

        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    faulty = Faulty(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield faulty
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


def _flipped(body: bytes, rule: Rule) -> bytes:
    if not body:
        return body
    place = min(len(body) - 1, int(rule.at * len(body)))
    return body[:place] + bytes([body[place] ^ (1 << rule.bit)]) + body[place + 1 :]


class _Nowhere:
    closed = False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
