"""What `trainyard bench` says when it was asked wrongly, or cannot measure: before it has measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.support.truth_server import truth_server
from trainyard.bench.warmup import warm_bucket
from trainyard.errors import PermanentError, Refused, TrainyardError
from trainyard_cli.bench_report import in_short
from trainyard_cli.benching import base, first_model
from trainyard_cli.main import app

INCLUDE = Path(__file__).parents[3] / "include"
PATIENCE = 55  # seconds; less than the 60 that would pass if nobody were told to end
# What is started in the background inherits that Ctrl-C is ignored: not so here.
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from trainyard_cli.main import app; app()"
)


def bench(*words: str) -> Result:
    return CliRunner().invoke(app, ["bench", *words])


@contextmanager
def answering(status: int, body: bytes, seconds: float = 0.0) -> Iterator[str]:
    """A server that says the same to everybody. seconds: before it does."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            over.wait(seconds)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()


@pytest.mark.parametrize(
    "url",
    [
        "a:1",
        "http://",
        "http:///v1",
        "http://a:b",
        "http://a:0",
        "http://a:99999",
        "http://[::1",
        "http://a b",
    ],
)
def test_an_address_that_is_none_is_refused_by_the_name_of_its_option(url: str) -> None:
    with pytest.raises(Refused, match=r"^--baseline = .* is not an http\(s\) address"):
        base(url, "--baseline")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--rate 5 --concurrency 2", "--concurrency = 2: does nothing with --rate"),
        ("--rate 5 --shape 2", "--shape = 2.0: does nothing with the process poisson"),
        ("--rate 5 --process trace", "--process = 'trace': is not known. Known: constant, poisson, gamma"),
        ("--process gamma", "--process = 'gamma': does nothing without --rate"),
        ("--prompt-max 9", "--prompt-max = 9: does nothing without --prompt-sigma"),
        ("--output-max 9", "--output-max = 9: does nothing without --output-sigma"),
        ("--prefix-tokens 9", "--prefix-tokens = 9: does nothing without --prefix-groups"),
        ("--think 1", "--think = 1.0: does nothing without --turns"),
        ("--image-count 2", "--image-count = 2: does nothing without --images"),
        ("--speed 2", "--speed = 2.0: does nothing where no trace is replayed"),
        ("--ttft-limit nan", "--ttft-limit = nan: must be a number of seconds above zero"),
        ("--price-per-hour inf", "--price-per-hour = inf: must be a number above zero"),
        ("--prompt-tokens 100000000", "must be a whole number from 1 to 1048576"),
        ("--processes 1000", "must be a whole number from 1 to 64"),
        ("--concurrency 0", "must be a whole number from 1 to 100000"),
        ("--e2e-limit 0", "--e2e-limit = 0.0: must be a number of seconds above zero"),
    ],
)
def test_an_option_that_would_do_nothing_or_too_much_is_refused(words: str, said: str) -> None:
    done = bench("http://127.0.0.1:9", *words.split())
    assert done.exit_code == 1
    assert said in done.stderr
    assert done.stdout == ""  # which --json keeps for machines


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_figures_that_could_not_be_kept_are_not_measured(option: str, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    place = taken / "report.html" if option == "--report" else taken
    places = {"--out": tmp_path / "out"} | {option: place}
    with truth_server() as server:
        done = bench(server.url, *(str(word) for pair in places.items() for word in pair))
        assert not server.truths
    assert done.exit_code == 1
    assert f"{option} = '{taken}': cannot be written to (File exists)" in done.stderr


def test_a_report_that_would_be_a_folder_is_refused(tmp_path: Path) -> None:
    done = bench("http://127.0.0.1:9", "--out", str(tmp_path), "--report", str(tmp_path))
    assert "is a folder. Name a file, such as report.html" in done.stderr


def test_a_server_that_names_no_model_is_told_from_one_that_lets_nobody_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with answering(200, b"<html>Welcome") as url:
        with pytest.raises(TrainyardError, match=r"names no model: it answers 200: '<html>Welcome'.*--model"):
            first_model(url)
    with answering(401, b"who?") as url:
        with pytest.raises(TrainyardError, match=r"it answers 401: 'who\?'. Set OPENAI_API_KEY"):
            first_model(url)
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        with pytest.raises(TrainyardError, match="Correct OPENAI_API_KEY"):
            first_model(url)


def test_what_a_failing_server_says_is_on_the_terminal_too(tmp_path: Path) -> None:
    with truth_server(faults=("http_5xx",)) as server:
        words = ["--no-warmup", "--concurrency", "1", "--requests", "3", "--max-lag", "30"]
        done = bench(server.url, *words, "--out", str(tmp_path))
    assert "http_5xx, such as: 500: oops" in done.stdout
    assert done.exit_code == 1
    told = json.loads((tmp_path / "report.json").read_text())["release"]
    assert told["outcome"] == "unanswered"
    page = (tmp_path / "report.html").read_text()
    assert "unanswered" in page
    assert "Load test</h2>" in page


def test_a_warm_up_gives_up_on_a_server_that_stays_silent() -> None:
    with answering(200, b"", seconds=60) as url:
        with pytest.raises(
            PermanentError, match=r"answered none of 2 generations .* no complete answer within"
        ):
            warm_bucket(url, "m", 16, rounds=12, output_tokens=4, timeout=0.2, silences=2)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_told_to_end_leaves_no_generator_and_no_file(
    ending: signal.Signals, tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": str(INCLUDE), "TMPDIR": str(tmp_path)}
    with truth_server() as server:
        words = ["bench", server.url, "--no-warmup", "--duration", "60", "--out", str(tmp_path / "out")]
        command = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words], env=environment, start_new_session=True
        )
        try:
            while not server.truths and command.poll() is None:
                time.sleep(0.05)
            command.send_signal(ending)
            assert command.wait(timeout=PATIENCE) == 128 + ending
            with pytest.raises(ProcessLookupError):
                os.killpg(command.pid, 0)  # nobody is left of its session
        finally:
            command.kill()
            command.wait()
    assert not list(tmp_path.glob("load-*"))


def test_a_warm_up_that_nobody_answers_can_be_interrupted(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(INCLUDE)}
    with answering(200, b"", seconds=60) as url:
        words = ["bench", url, "--model", "m", "--out", str(tmp_path)]
        command = subprocess.Popen(
            [sys.executable, "-u", "-c", COMMAND, *words],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert command.stdout is not None
            assert command.stdout.readline() == f"warming up {url}\n"
            time.sleep(0.3)
            command.send_signal(signal.SIGINT)
            assert command.wait(timeout=PATIENCE) == 130  # and not after the 60 s that an answer may take
        finally:
            command.kill()
            command.wait()


def test_a_generator_that_was_too_slow_is_said_once_with_all_its_reasons() -> None:
    told = in_short({"generator": {"reasons": ["it waited", "it was late"]}})
    assert told == "The load generator was the bottleneck: it waited; it was late"
