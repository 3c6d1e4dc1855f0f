"""What runs beside a server: the preStop hook that waits for streams, and the proof of the bundle."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.jobs import evidence, pages, quiesce
from trainyard.jobs.__main__ import main
from trainyard.jobs.options import parse

GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting")
PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a b"} 1.0
vllm:generation_tokens_total{engine="0"} 400.0
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], tuple[int, str]]], int]]:
    """Serves what a function says now; returns its port."""
    monkeypatch.setattr(quiesce, "WITHDRAWAL_SECONDS", 0.0)
    monkeypatch.setattr(quiesce, "POLL_SECONDS", 0.01)
    monkeypatch.delenv("POD_IP", raising=False)
    running: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[], tuple[int, str]]) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer() if self.path == "/metrics" else (404, "")
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(found)
        return int(found.server_address[1])

    yield start
    for found in running:
        found.shutdown()
        found.server_close()


def wait(port: int, seconds: str, capsys: pytest.CaptureFixture[str]) -> str:
    code = main(["quiesce", "--port", str(port), "--seconds", seconds, "--gauges", ",".join(GAUGES)])
    assert code == 0
    return capsys.readouterr().out


def test_the_hook_waits_until_nothing_is_in_flight(
    server: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    idle = PAGE.replace(" 2.0", " 0.0").replace(" 1.0", " 0.0")
    asked = []

    def answer() -> tuple[int, str]:
        asked.append(1)
        return 200, PAGE if len(asked) < 3 else idle

    assert "\nidle after" in "\n" + wait(server(answer), "600", capsys)
    assert len(asked) >= 3  # more, where an answer came too late to be read


def test_a_server_that_never_gets_idle_is_waited_for_to_the_end(
    server: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "not idle after 0.2 s" in wait(server(lambda: (200, PAGE)), "0.2", capsys)


@pytest.mark.parametrize("answer", [(500, "no"), (200, "other_metric 0"), (200, "")])
def test_figures_that_cannot_be_read_are_not_taken_for_idle(
    server: Callable[..., int], capsys: pytest.CaptureFixture[str], answer: tuple[int, str]
) -> None:
    assert "not idle" in wait(server(lambda: answer), "0.2", capsys)


def test_a_server_that_has_ended_is_not_waited_for(
    server: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    wait(1, "600", capsys)  # nobody listens on port 1
    assert time.monotonic() - began < 300


@given(st.text(max_size=300))
def test_any_page_is_read_without_a_crash_or_refused_as_no_number(text: str) -> None:
    try:
        quiesce.in_flight(text, GAUGES)
    except ValueError:
        return


def test_evidence_is_the_metrics_and_the_files_without_our_own(
    server: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("neuron/compile_cache/a/model.neff", ".trainyard-1.json", "neuron/a/.complete"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    port = server(lambda: (200, PAGE))
    assert main(["evidence", "--port", str(port), "--folder", str(tmp_path), "--timeout", "60"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"metrics": PAGE, "files": ["neuron/a/.complete", "neuron/compile_cache/a/model.neff"]}


def test_evidence_that_cannot_be_had_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evidence.main(["--port", "1", "--folder", str(tmp_path / "none"), "--timeout", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == {"metrics": "", "files": []}


def test_a_page_that_is_none_is_an_error(server: Callable[..., int]) -> None:
    with pytest.raises(OSError, match="/metrics answers"):
        pages.metrics_page("127.0.0.1", server(lambda: (503, "starting")), 60.0)


@pytest.mark.parametrize("job", ["quiesce", "evidence", "probe"])
@pytest.mark.parametrize("arguments", [[], ["--port"], ["--colour", "red"], ["port", "1"]])
def test_wrong_options_are_told_with_the_right_ones(
    job: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([job, *arguments]) == 2
    assert capsys.readouterr().out.startswith(f"usage: {job}")


def test_options_are_taken_with_a_space_and_with_an_equals_sign() -> None:
    assert parse(["--a", "1", "--b=2"], {"a": "", "b": "", "c": "3"}) == {"a": "1", "b": "2", "c": "3"}
