"""Ranges of the Hub's files, however a server frames them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trainyard import hub_reader
from trainyard.errors import HubUnavailable
from trainyard.hub_content import Content

REPO, SHA = "tests/Read", "a" * 40
CONTENT = bytes(range(256)) * 4096


class Ranges(BaseHTTPRequestHandler):
    """How a reply is framed, and how many replies are cut in their middle, is the server's to say."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        begin, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        body = CONTENT[begin : end + 1]
        self.server.connections.add(self.client_address)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{end}/{len(CONTENT)}")
        cut = len(body) // 2 if self.server.cuts > 0 else len(body)
        self.server.cuts -= 1
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, cut, 70_000):
                piece = body[start : min(cut, start + 70_000)]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if cut == len(body):
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])
        self.close_connection = cut < len(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, chunked: bool, cuts: int) -> None:
        super().__init__(("127.0.0.1", 0), Ranges)
        self.chunked, self.cuts = chunked, cuts
        self.connections: set[tuple[str, int]] = set()


@contextmanager
def serving(*, chunked: bool, cuts: int = 0) -> Iterator[Server]:
    server = Server(chunked, cuts)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def read(server: Server, start: int, length: int, times: int = 1) -> bytes:
    content = Content(f"http://127.0.0.1:{server.server_port}", None)
    reader = content.reader(REPO, SHA, "model.safetensors", len(CONTENT))
    into = bytearray(length)
    for _ in range(times):
        reader.read_into(start, memoryview(into), lambda: None)
    return bytes(into)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("cuts", [0, 2])
def test_a_range_arrives_whole_however_it_is_framed_and_broken(chunked: bool, cuts: int) -> None:
    with serving(chunked=chunked, cuts=cuts) as server:
        assert read(server, 1000, 700_001) == CONTENT[1000:701_001]


def test_one_connection_serves_one_range_after_the_other() -> None:
    with serving(chunked=False) as server:
        read(server, 0, len(CONTENT), times=5)
        assert len(server.connections) == 1


def test_a_server_that_always_breaks_without_a_byte_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_reader, "TRIES", 2)
    with serving(chunked=False, cuts=10**6) as server, pytest.raises(HubUnavailable):
        read(server, 10, 1)
