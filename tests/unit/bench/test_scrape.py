"""Pages of metrics that do not come, come too slowly, or have no end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from trainyard.bench import pages, scrape

HEAD = b"HTTP/1.1 200 OK\r\n"
PAGE = b"vllm:request_success_total 1\n"
Speak = Callable[[socket.socket, threading.Event], None]


@contextmanager
def server(speak: Speak) -> Iterator[str]:
    """Answers each connection by `speak`, which ends when it is told to."""
    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            speak(connection, over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()


def drip(start: bytes, drop: bytes) -> Speak:
    def speak(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(start)
        for _ in range(1500):
            if over.wait(0.02):
                break
            connection.sendall(drop)

    return speak


def endless(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(HEAD + b"\r\n")
    while not over.is_set():
        connection.sendall(PAGE * 10_000)


@pytest.mark.parametrize(
    "slow",
    [
        drip(b"HTTP/1.1 200", b" "),
        drip(HEAD, b"X-More: 1\r\n"),
        drip(HEAD + b"\r\n", PAGE),
        drip(HEAD + b"Content-Length: 1000000\r\n\r\n", PAGE),
        drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n" % (len(PAGE), PAGE)),
    ],
    ids=["status", "headers", "no length", "length", "chunks"],
)
def test_a_page_that_drips_is_a_gap(slow: Speak) -> None:
    with server(slow) as url:
        assert scrape.ask(("canary", url), 0.3)["error"].startswith("TimeoutError")


def test_a_page_without_an_end_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_BYTES", 1 << 20)
    with server(endless) as url:
        assert scrape.ask(("canary", url), 600) == {"error": "OSError: a page of more than 1 MiB"}


def test_a_server_that_hangs_up_is_a_gap() -> None:
    with server(lambda connection, over: None) as url:
        assert "error" in scrape.ask(("canary", url), 600)


def test_a_page_is_read_with_and_without_its_length() -> None:
    for head in (b"Content-Length: %d\r\n\r\n" % len(PAGE), b"\r\n"):
        with server(lambda connection, over, head=head: connection.sendall(HEAD + head + PAGE)) as url:  # type: ignore[misc]
            assert scrape.ask(("canary", url), 600) == {"text": PAGE.decode()}
