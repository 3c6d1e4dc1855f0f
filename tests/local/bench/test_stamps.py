"""The kernel's stamps, on a real connection."""

from __future__ import annotations

import socket
import time

import pytest

from trainyard.bench.stamps import SPACE, Stamps, offset

SLACK = 0.001


@pytest.fixture
def stamps() -> Stamps:
    found = Stamps()
    if not found.kernel:
        pytest.skip("this kernel does not stamp what it receives")
    return found


def test_bytes_are_stamped_when_they_came_and_not_when_they_were_read(stamps: Stamps) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        writer = socket.create_connection(server.getsockname())
        reader, _ = server.accept()
    with writer, reader:
        assert stamps.ask(reader)
        before = time.monotonic()
        writer.sendall(b"x")
        after = time.monotonic()
        time.sleep(0.02)
        data, ancillary, _, _ = reader.recvmsg(10, SPACE)
    assert data == b"x"
    assert before - SLACK <= stamps.arrival(ancillary) <= after + SLACK


def test_bytes_without_a_stamp_came_now(stamps: Stamps) -> None:
    before = time.monotonic()
    assert before <= stamps.arrival([]) <= time.monotonic()


def test_a_wall_clock_that_was_set_is_found_out(stamps: Stamps, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stamps.step() < SLACK
    shifted = offset() + 5 * 10**9
    monkeypatch.setattr("trainyard.bench.stamps.offset", lambda: shifted)
    assert stamps.step() == pytest.approx(5, abs=SLACK)
