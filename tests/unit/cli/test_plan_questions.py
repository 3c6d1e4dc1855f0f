"""`trainyard plan` asked what cannot be answered: exit code 2, and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.printed_plans import LLAMA, PLANS, answered, printed, spec_file


def bad(spec: str | Path, config: Path | None = LLAMA, **options: Any) -> str:
    code, text = printed(spec, config, **options)
    assert code == 2
    code, found = answered(spec, config, **options)
    assert (code, found["can_run"]) == (2, None)
    assert found["error"].strip() == text.strip()
    return text


def test_an_unknown_entry_is_a_bad_question() -> None:
    assert "no such entry" in bad("no-such-model")


def test_a_file_that_is_not_there_is_a_bad_question() -> None:
    assert "is no file" in bad("somewhere/else.yaml")


def test_a_misspelt_field_is_a_bad_question(tmp_path: Path) -> None:
    assert "hardwear" in bad(spec_file(tmp_path, hardwear={}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "tensorrt"}, "no such engine"),
        ({"instance_type": "p5.48xlarge"}, "not a Neuron instance type"),
        ({"tensor_parallel": 0}, "hardware.tensor_parallel"),
        ({"batch_size": 100_000}, "compile.batch_size"),
    ],
)
def test_an_option_that_means_nothing_is_a_bad_question(options: dict[str, Any], words: str) -> None:
    assert words in bad(PLANS / "my-llama.yaml", **options)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"{", "no JSON"),
        ("config.json", b"[]", "not an object"),
        ("config.json", b"\xff", "cannot be read"),
        ("config.json", b'{"a":' * 100_000, "no JSON"),
        ("weights.json", b"{}", "total_size"),
    ],
)
def test_a_config_that_is_none_is_a_bad_question(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / "config.json").write_bytes((LLAMA / "config.json").read_bytes())
    (tmp_path / name).write_bytes(content)
    assert words in bad(PLANS / "my-llama.yaml", tmp_path)


def test_a_config_that_says_too_little_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    code, text = printed(PLANS / "my-llama.yaml", tmp_path)
    assert code == 1
    assert "positive whole number" in text
    code, found = answered(PLANS / "my-llama.yaml", tmp_path)
    assert (code, found["can_run"], set(found)) == (1, False, {"schema", "can_run", "problems"})


@pytest.mark.parametrize("content", ["prices: [", "prices: 3", "a: &b [*b]", "prices: {trn2.48xlarge: free}"])
def test_prices_that_are_none_are_a_bad_question(tmp_path: Path, content: str) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(content)
    assert str(table) in bad(PLANS / "my-llama.yaml", prices=table)
