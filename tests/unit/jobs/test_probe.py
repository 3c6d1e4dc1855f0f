from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from trainyard.jobs import probe

Answer = tuple[int, bytes]


@pytest.fixture(autouse=True)
def outside_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_IP", raising=False)


@pytest.fixture
def server() -> Iterator[Callable[[Any], int]]:
    """Starts a server that gives one answer to everything; returns its port."""
    running = []
    release = threading.Event()

    def start(answer: Answer | None) -> int:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert (self.path, asked["model"], asked["max_tokens"]) == ("/v1/completions", "tiny", 1)
                if answer is None:  # hangs, as an engine that is still compiling does
                    release.wait()
                    return
                status, body = answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(found)
        return int(found.server_address[1])

    yield start
    release.set()
    for found in running:
        found.shutdown()
        found.server_close()


def ask(port: int, timeout: str = "60") -> int:
    return probe.main(["--port", str(port), "--model=tiny", "--timeout", timeout])


def completion(text: Any, tokens: int = 0) -> Answer:
    return 200, json.dumps({"choices": [{"text": text}], "usage": {"completion_tokens": tokens}}).encode()


@pytest.mark.parametrize("answer", [completion(" world"), completion("", 1)])
def test_a_generation_means_ready(server: Callable[[Answer], int], answer: Answer) -> None:
    assert ask(server(answer)) == 0


@pytest.mark.parametrize(
    "answer",
    [
        (200, b""),
        (200, b"{}"),
        (200, b"[]"),
        (200, b"<html>"),
        completion(""),
        completion(None),
        (500, b"engine is dead"),
        (404, b"no such model"),
    ],
)
def test_anything_but_a_generation_means_not_ready(server: Callable[[Answer], int], answer: Answer) -> None:
    assert ask(server(answer)) == 1


def test_a_server_that_hangs_is_not_waited_for(server: Callable[[Answer | None], int]) -> None:
    assert ask(server(None), timeout="0.2") == 1


def test_the_pods_own_address_is_asked_unless_another_is_named(
    server: Callable[[Answer], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server(completion("x"))
    monkeypatch.setenv("POD_IP", "127.9.9.9")
    assert ask(port) == 1
    assert probe.main(["--port", str(port), "--model", "tiny", "--host", "127.0.0.1", "--timeout", "60"]) == 0
    monkeypatch.setenv("POD_IP", "127.0.0.1")
    assert ask(port) == 0


def test_nobody_there_means_not_ready() -> None:
    assert ask(1) == 1


@pytest.mark.parametrize("arguments", [[], ["--port", "1"], ["--what", "1"], ["--port"], ["x"]])
def test_a_wrong_call_says_how_to_call_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(arguments) == 2
    assert "usage" in capsys.readouterr().out
