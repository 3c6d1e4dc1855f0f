from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.stack import ports


def test_every_name_gets_a_port_of_its_own_on_which_a_server_can_listen() -> None:
    for seed in range(7, 2007, 100):  # other tests on this machine look for ports, too
        chosen = ports.choose(("a", "b", "c"), {}, paired=frozenset({"b"}), seed=seed)
        assert len(set(chosen.values())) == 3
        if all(map(ports.is_free, (*chosen.values(), chosen["b"] + ports.GRPC_OFFSET))):
            return
    pytest.fail("not one of twenty choices was free")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """A machine on which only these ports are taken."""
    found: set[int] = set()
    monkeypatch.setattr(ports, "is_free", lambda port: port not in found)
    return found


@pytest.mark.usefixtures("taken")
def test_ports_of_the_run_before_are_kept() -> None:
    first = ports.choose(("a", "b"), {}, paired=frozenset(), seed=11)

    assert ports.choose(("a", "b"), first, paired=frozenset(), seed=99) == first


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    with socket.create_server((ports.HOST, 0)) as other:
        assert not ports.is_free(other.getsockname()[1])


def test_a_port_that_somebody_else_took_is_replaced(taken: set[int]) -> None:
    before = ports.choose(("a", "b"), {}, paired=frozenset(), seed=23)
    taken.add(before["a"])

    after = ports.choose(("a", "b"), before, paired=frozenset(), seed=23)

    assert after["a"] not in before.values()
    assert after["b"] == before["b"]


@pytest.mark.usefixtures("taken")
def test_two_stacks_that_choose_at_once_begin_at_different_places() -> None:
    one = ports.choose(("a",), {}, paired=frozenset(), seed=1000)
    other = ports.choose(("a",), {}, paired=frozenset(), seed=2000)

    assert one != other


def test_a_machine_without_a_free_port_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)

    with pytest.raises(ports.NoFreePort, match=r"no free port for a on 127\.0\.0\.1"):
        ports.choose(("a",), {}, paired=frozenset(), seed=0)


@given(
    st.text(max_size=40) | st.dictionaries(st.text(), st.integers() | st.text(), max_size=3).map(json.dumps)
)
def test_a_spoilt_memory_of_ports_costs_no_start(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file: Path = tmp_path_factory.getbasetemp() / "ports.json"
    file.write_text(text)

    assert all(isinstance(port, int) for port in ports.read(file).values())


def test_no_outgoing_connection_takes_the_second_port_of_a_pair() -> None:
    """Linux hands out ports from 32768 on; a SeaweedFS part listens at its port + 10000 as well."""
    for seed in (0, 1, 2_767, 5_000, 9_999):
        chosen = ports.choose(("s3", "other"), {"s3": 26_086}, paired=frozenset({"s3"}), seed=seed)
        assert chosen["s3"] + ports.GRPC_OFFSET < 32_768
