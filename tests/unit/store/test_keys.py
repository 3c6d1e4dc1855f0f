from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.errors import Refused
from trainyard.store import keys

SHA = "a" * 40


@pytest.mark.parametrize(
    "bad", ["", "..", "a..b", "../x", "A", "a/b", "a b", "-a", ".a", "a" * 64, "a\n", "ü", None, 7, "a\x00"]
)
def test_an_id_that_could_leave_its_folder_is_refused(bad: object) -> None:
    with pytest.raises(Refused) as caught:
        keys.check_id("model", bad)
    assert caught.value.problems[0].field == "model"
    assert caught.value.problems[0].remedy


@given(st.text())
def test_whatever_passes_as_an_id_stays_one_part_of_a_key(text: str) -> None:
    try:
        key = keys.release(text, "r1")
    except Refused:
        return
    assert key.split("/") == ["releases", text, "r1.json"]
    assert ".." not in key


@pytest.mark.parametrize(
    "bad", ["name", "a/b/c", "../b", "a/..", "a--b/c", "a/b--c", "/a/b", "a/b c", "-/b", ""]
)
def test_a_repository_that_is_not_org_and_name_is_refused(bad: str) -> None:
    with pytest.raises(Refused):
        keys.model_manifest(bad, SHA)


def test_a_model_lies_under_its_repository_and_commit() -> None:
    assert (
        keys.model_manifest("meta-llama/Llama-3.1_8B", SHA)
        == f"models/meta-llama--Llama-3.1_8B/{SHA}/manifest.json"
    )


@pytest.mark.parametrize("bad", ["main", "A" * 40, "a" * 39, "v1.0"])
def test_a_revision_that_can_move_is_refused(bad: str) -> None:
    with pytest.raises(Refused, match="Pin the revision"):
        keys.model_manifest("a/b", bad)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "./a",
        "a/.",
        "a\\b",
        "C:/x",
        "a\nb",
        "a\x00",
        "x" * 600,
        "\ud800",
    ],
)
def test_a_path_that_could_escape_or_confuse_is_refused(bad: str) -> None:
    with pytest.raises(Refused):
        keys.check_path("file", bad)


def test_ordinary_paths_pass() -> None:
    for path in (
        "config.json",
        "checkpoint/weights/tp0_sharded_checkpoint.safetensors",
        "a b/ü.txt",
        "..a/b..",
    ):
        assert keys.check_path("file", path) == path
