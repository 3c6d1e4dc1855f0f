"""The stream reader against a server that knows when it wrote what, and that fails as told."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.truth_server import truth_server
from trainyard.bench.exchange import Exchange
from trainyard.bench.load import run_load
from trainyard.bench.samples import Sample
from trainyard.bench.workload import Workload, payload

CHAT = "/v1/chat/completions"


def ask(
    url: str, *, tokens: int = 8, stream: bool = True, chat: bool = True, timeout: float = 60
) -> Exchange:
    path = CHAT if chat else "/v1/completions"
    body = payload("m", "a few words", output_tokens=tokens, stream=stream, chat=chat)
    return Exchange(url + path, body, timeout=timeout).run()


@pytest.mark.parametrize("chat", [True, False])
def test_the_first_token_is_the_first_text_and_not_the_early_role_chunk(chat: bool) -> None:
    with truth_server(ttft=0.1, early_role_chunk=True) as server:
        exchange = ask(server.url, chat=chat)
        truth = server.truths[0]
    assert exchange.ok
    assert exchange.first is not None
    # Never before it was written; the stamp of the role chunk would be 100 ms too early.
    assert exchange.first >= truth.writes[0][0]
    assert exchange.finish_reason == "length"
    assert exchange.text == "tok " * 8


@pytest.mark.parametrize("packed", [1, 2, 4, 8])
@pytest.mark.parametrize("usage", ["continuous", "final"])
def test_inter_token_time_is_right_however_many_tokens_a_chunk_carries(packed: int, usage: str) -> None:
    with truth_server(ttft=0.01, itl=0.002, tokens_a_chunk=packed, usage=usage) as server:
        sample = ask(server.url, tokens=33).sample(arm="canary")
        truth = server.truths[0]
    assert sample.output_tokens == 33
    assert sum(sample.chunk_tokens) == 33
    assert [tokens for _, tokens in truth.writes] == list(sample.chunk_tokens)
    assert len(sample.gaps()) == 33 - packed
    # The gaps share out exactly the time from the first chunk to the last, and no stamp is before its write.
    assert sum(sample.gaps()) == pytest.approx(sample.chunk_times[-1] - sample.chunk_times[0])
    for arrival, (written, _) in zip(sample.chunk_times, truth.writes, strict=True):
        assert sample.started + arrival >= written - 1e-6


@pytest.mark.parametrize(
    "kind", ["http_5xx", "http_4xx", "malformed", "empty", "cut", "no_done", "no_usage", "error_event"]
)
def test_every_failure_has_a_kind_of_its_own(kind: str) -> None:
    with truth_server(faults=(kind,), ttft=0.001, itl=0.0005) as server:
        sample = ask(server.url).sample(arm="canary")
    assert (sample.ok, sample.error) == (False, kind)
    assert sample.detail


def test_a_server_that_hangs_is_a_time_out() -> None:
    with truth_server(faults=("hang",)) as server:
        sample = ask(server.url, timeout=0.2).sample(arm="canary")
    assert sample.error == "timeout"
    assert sample.connected is not None


def test_nobody_listening_is_a_failed_connection() -> None:
    with socket.socket() as bound:  # bound, but not listening
        bound.bind(("127.0.0.1", 0))
        sample = ask(f"http://127.0.0.1:{bound.getsockname()[1]}").sample(arm="canary")
    assert sample.error == "connect"
    assert sample.ttft is None


def test_a_stream_that_stops_midway_keeps_what_had_arrived() -> None:
    with truth_server(faults=("cut",), ttft=0.001, itl=0.0005) as server:
        sample = ask(server.url, tokens=10).sample(arm="canary")
    assert sample.error == "cut"
    assert sample.ttft is not None
    assert sum(sample.chunk_tokens) == 5


def test_an_answer_in_one_piece_is_read_too() -> None:
    with truth_server() as server:
        exchange = ask(server.url, stream=False)
    assert exchange.ok
    assert exchange.text == "tok " * 8
    assert exchange.sample(arm="canary").ttft is None


def test_an_interrupted_exchange_is_censored_and_lets_the_interruption_pass() -> None:
    class Killed(BaseException):
        pass

    ticks = iter(range(6))

    def clock() -> float:
        if next(ticks, None) == 4:
            raise Killed
        return 0.0

    with truth_server() as server:
        exchange = Exchange(server.url + CHAT, payload("m", "x", output_tokens=4), timeout=60, clock=clock)
        with pytest.raises(Killed):
            exchange.run()
    assert exchange.error == "censored"
    assert exchange.sample(arm="canary").censored


def test_failures_at_a_given_rate_are_counted_exactly() -> None:
    faults = ("", "http_5xx", "", "cut", "no_done", "", "empty", "no_usage", "", "error_event")
    samples: list[Sample] = []
    with truth_server(faults=faults, ttft=0.001, itl=0.0002) as server:
        for _ in range(3 * len(faults)):
            samples.append(ask(server.url, tokens=4).sample(arm="canary"))
    assert Counter(sample.error for sample in samples) == Counter(faults * 3)


STILL = 6.0  # seconds that a busy machine may stand still without a good answer being taken for a time-out


# With many streams the reader looks every so often, and reads what has come together. There are more streams
# than answers that never come: these are waited for all at once.
@pytest.mark.parametrize(("percent", "streams"), [(1, 8), (10, 14), (10, 32), (50, 32)])
def test_the_fault_matrix_is_counted_exactly_at_every_share(percent: int, streams: int) -> None:
    """Every kind at once, each at the same share of the requests, through the generator's own reader."""
    kinds = (
        "http_5xx",
        "http_4xx",
        "malformed",
        "empty",
        "cut",
        "no_done",
        "no_usage",
        "error_event",
        "hang",
    )
    if percent == 50:
        kinds = kinds[4:6]
    faults = [kind for kind in kinds for _ in range(percent)]
    faults += [""] * (100 - len(faults))
    random.Random(percent).shuffle(faults)
    load = Workload(
        concurrency=streams, requests=100, duration_seconds=60, output_tokens=12, timeout_seconds=STILL
    )
    with truth_server(faults=tuple(faults), ttft=0.0, itl=0.0 if streams < 16 else 0.002) as server:
        samples, summary = run_load(model="m", arms={"canary": [server.url]}, workload=load, seed=1)
        happened = Counter(truth.fault for truth in server.truths)
    assert happened == Counter(faults)
    figures = summary["arms"]["canary"]
    named = ("timeout" if fault == "hang" else fault for fault in faults if fault)
    assert Counter(figures["failures"]) == Counter(named)
    assert (figures["requests"], figures["succeeded"]) == (100, happened[""])
    assert len(samples) == 100


def test_what_arrived_before_a_time_out_says_what_was_wrong() -> None:
    """The generator keeps pieces back to read them together: those count too."""
    load = Workload(concurrency=2, requests=2, duration_seconds=60, output_tokens=20, timeout_seconds=STILL)
    with truth_server(faults=("error_hang",), ttft=0.005, itl=0.005) as server:
        samples, summary = run_load(model="m", arms={"canary": [server.url]}, workload=load, seed=1)
    assert summary["arms"]["canary"]["failures"] == {"error_event": 2}
    assert [sum(sample.chunk_tokens) for sample in samples] == [10, 10]


@contextmanager
def answers_at_once(answer: bytes, reads: int) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads so many bytes of each request, answers and closes. Its address, what it read."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heads.append(connection.recv(reads))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", heads
        server.shutdown(socket.SHUT_RDWR)
    thread.join(60)


TOO_LARGE = b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large"
LARGE = 8 << 20  # more than the buffers between two sockets hold


def test_a_refusal_of_a_request_that_was_not_read_is_a_refusal() -> None:
    """Pictures make a request large, and its sender finds the connection closed before it is done."""
    with answers_at_once(TOO_LARGE, 100) as (address, _):
        body = payload("m", "x" * LARGE, output_tokens=1)
        sample = Exchange(f"http://{address}{CHAT}", body, timeout=60).run().sample(arm="canary")
    assert (sample.error, sample.status, sample.detail) == ("http_4xx", 413, "413: too large")


def test_the_generator_sees_such_a_refusal_too() -> None:
    load = Workload(concurrency=2, requests=4, duration_seconds=60, extra={"large": "x" * LARGE})
    with answers_at_once(TOO_LARGE, 100) as (address, _):
        _, summary = run_load(model="m", arms={"canary": [f"http://{address}"]}, workload=load, seed=1)
    assert summary["arms"]["canary"]["failures"] == {"http_4xx": 4}


def test_a_status_counts_even_where_the_connection_breaks_behind_it() -> None:
    """What was not read of the request breaks it."""
    with answers_at_once(b"HTTP/1.1 503 Busy\r\n\r\nbusy", 20) as (address, _):
        sample = ask(f"http://{address}").sample(arm="canary")
    assert (sample.error, sample.detail) == ("http_5xx", "503: busy")


def test_a_request_asks_for_bytes_as_they_are_and_keeps_a_password_to_itself() -> None:
    with answers_at_once(TOO_LARGE, 10_000) as (address, heads):
        ask(f"http://user:secret@{address}")
    assert f"\r\nHost: {address}\r\n".encode() in heads[0]
    assert b"\r\nAccept-Encoding: identity\r\n" in heads[0]
    assert b"secret" not in heads[0]
