"""A module in the folder is an engine: a fifth one is one new file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from trainyard.errors import Refused
from trainyard.neuron import engines as package
from trainyard.neuron.engines import engine, engines
from trainyard.neuron.engines.base import powers_of_two

FIFTH = """
from trainyard.neuron.engines.optimum import Optimum


class Fifth(Optimum):
    name = "fifth"


ENGINE = Fifth()
"""


@pytest.fixture
def fifth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "fifth_engine_of_a_test.py").write_text(FIFTH)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    engines.cache_clear()
    yield
    engines.cache_clear()


def test_there_are_four() -> None:
    assert list(engines()) == ["native", "nxdi", "optimum", "tgi"]


def test_a_new_file_is_a_new_engine(fifth: None) -> None:
    assert list(engines()) == ["fifth", "native", "nxdi", "optimum", "tgi"]
    assert engine("fifth").name == "fifth"


def test_an_unknown_engine_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(Refused, match="native, nxdi, optimum, tgi"):
        engine("triton")


@pytest.mark.parametrize("name", ["native", "nxdi", "optimum", "tgi"])
def test_every_engine_is_whole(name: str) -> None:
    chosen = engine(name)
    assert chosen.name == name
    assert chosen.holds
    assert chosen.families
    assert chosen.model_types
    assert chosen.running_metrics
    for region in ("us-east-1", "eu-west-1"):
        repository, _, tag = chosen.image(region).rpartition(":")
        assert repository
        assert tag not in ("", "latest")
    for holds in chosen.holds:
        chosen.layout(holds)


def test_powers_of_two_begin_and_end_where_they_are_told() -> None:
    assert powers_of_two(64) == (1, 2, 4, 8, 16, 32, 64)
    assert powers_of_two(100, 8) == (8, 16, 32, 64)
    assert powers_of_two(0) == ()
