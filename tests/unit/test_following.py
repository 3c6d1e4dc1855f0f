"""Which entries of the catalogue the schedule looks at."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainyard import catalogue
from trainyard.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("llama-8b", "llama-70b", "qwen-4b", "all"):
        (tmp_path / f"{name}.yaml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("follow", "names"),
    [
        ("*", ["all", "llama-70b", "llama-8b", "qwen-4b"]),
        ("llama-*", ["llama-70b", "llama-8b"]),
        ("qwen-4b", ["qwen-4b"]),
        (" qwen-4b , llama-8b,", ["llama-8b", "qwen-4b"]),
        ("llama-*,llama-8b", ["llama-70b", "llama-8b"]),
        ("all", ["all"]),
        ("mistral-*", []),
        ("", []),
    ],
)
def test_names_and_patterns_choose_entries(folder: Path, follow: str, names: list[str]) -> None:
    assert catalogue.followed(folder, follow) == names


def test_a_name_without_an_entry_is_kept_for_its_task_to_refuse(folder: Path) -> None:
    assert catalogue.followed(folder, "lama-8b,qwen-*") == ["lama-8b", "qwen-4b"]


def test_none_is_followed_until_somebody_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINYARD_FOLLOW", raising=False)
    assert Settings().follow == ""
    monkeypatch.setenv("TRAINYARD_FOLLOW", "llama-*")
    assert Settings().follow == "llama-*"
