"""Answers over TLS: read by the same reader, stamped by the same clock, failing in the same words."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.certificate import write_certificate
from tests.support.truth_server import truth_server
from trainyard.bench import tls
from trainyard.bench.exchange import Exchange
from trainyard.bench.load import run_load
from trainyard.bench.workload import Workload, payload
from trainyard_cli.main import app

CHAT = "/v1/chat/completions"


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """One that this process and its children trust."""
    made = write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made[0]))
    tls.context.cache_clear()
    yield made
    tls.context.cache_clear()


def ask(url: str, *, stream: bool = True, timeout: float = 60) -> Exchange:
    body = payload("m", "a few words", output_tokens=8, stream=stream)
    return Exchange(url + CHAT, body, timeout=timeout).run()


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_over_tls_is_read_like_any_other(certificate: tuple[Path, Path], stream: bool) -> None:
    with truth_server(certificate=certificate, ttft=0.01, itl=0.001) as server:
        exchange = ask(server.url, stream=stream)
        truth = server.truths[0]
    sample = exchange.sample(arm="canary")
    assert (sample.error, sample.detail, exchange.text) == ("", "", "tok " * 8)
    if stream:
        assert [tokens for _, tokens in truth.writes] == list(sample.chunk_tokens)
        assert exchange.first is not None
        assert exchange.first >= truth.writes[0][0]


def test_a_load_test_over_tls_counts_every_failure(certificate: tuple[Path, Path]) -> None:
    faults = ("", "", "cut", "", "no_done", "http_5xx", "", "empty", "no_usage", "error_event")
    with truth_server(certificate=certificate, ttft=0.002, itl=0.0005, faults=faults) as server:
        workload = Workload(concurrency=4, requests=40, duration_seconds=60, output_tokens=8)
        samples, summary = run_load(model="m", arms={"canary": [server.url]}, workload=workload, seed=1)
        happened = Counter(truth.fault for truth in server.truths)
    figures = summary["arms"]["canary"]
    assert Counter(figures["failures"]) == Counter(fault for fault in faults * 4 if fault)
    assert happened == Counter(faults * 4)
    assert all(sample.ttft for sample in samples if sample.ok)


def test_a_server_that_nobody_trusts_is_a_failed_connection(tmp_path: Path) -> None:
    with truth_server(certificate=write_certificate(tmp_path)) as server:
        sample = ask(server.url).sample(arm="canary")
    assert sample.error == "connect"
    assert "self-signed certificate" in sample.detail


def test_a_server_that_hangs_over_tls_is_a_time_out(certificate: tuple[Path, Path]) -> None:
    made: list[Exchange] = []

    def clock() -> float:
        """The minute is nearly over as soon as there is a connection: shaking hands may take its time."""
        return 60.7 if made and made[0].connected else 1.0

    with truth_server(certificate=certificate, faults=("hang",)) as server:
        body = payload("m", "a few words", output_tokens=8)
        made.append(Exchange(server.url + CHAT, body, timeout=60, clock=clock))
        sample = made[0].run().sample(arm="canary")
    assert sample.error == "timeout"
    assert sample.connected is not None


def test_a_server_that_speaks_no_tls_is_a_failed_connection() -> None:
    with truth_server() as server:
        sample = ask(server.url.replace("http:", "https:"), timeout=1).sample(arm="canary")
    assert sample.error in ("connect", "timeout")
    assert sample.connected is None


def test_a_refusal_that_comes_along_with_the_handshake_is_not_overlooked(
    certificate: tuple[Path, Path],
) -> None:
    trusted = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trusted.load_cert_chain(*certificate)
    trusted.maximum_version = ssl.TLSVersion.TLSv1_2  # whose last words of a handshake are the server's

    def refuse(server: socket.socket) -> None:
        connection, _ = server.accept()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        sealed = trusted.wrap_bio(incoming, outgoing, server_side=True)
        with connection:
            while True:
                try:
                    sealed.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(16384))
            sealed.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
            connection.sendall(outgoing.read())
            while connection.recv(16384):  # until it is closed
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse, args=(server,), daemon=True)
        thread.start()
        sample = ask(f"https://127.0.0.1:{server.getsockname()[1]}").sample(arm="canary")
        thread.join(60)
    assert (sample.error, sample.detail) == ("http_5xx", "503: busy")


def test_the_command_measures_a_server_over_tls(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    with truth_server(certificate=certificate, ttft=0.002, itl=0.0005) as server:
        words = ["bench", server.url, "--concurrency", "2", "--requests", "20", "--max-lag", "30"]
        done = CliRunner().invoke(
            app, [*words, "--no-warm-up", "--output-tokens", "4", "--out", str(tmp_path)]
        )
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["arms"]["server"]["succeeded"] == 20
    assert summary["arms"]["server"]["failures"] == {}
    assert summary["generator"]["valid"]


def test_the_command_says_that_nobody_trusts_a_certificate(tmp_path: Path) -> None:
    with truth_server(certificate=write_certificate(tmp_path)) as server:
        done = CliRunner().invoke(app, ["bench", server.url, "--model", "m", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "certificate" in done.output
    assert "SSL_CERT_FILE" in done.output
