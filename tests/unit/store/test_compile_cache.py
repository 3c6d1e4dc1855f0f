"""The index of a configuration's compile cache, and the history of compiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.memory_objects import MemoryObjects
from trainyard.errors import CorruptArtifact, PermanentError
from trainyard.store.compile_cache import KEPT_FAULTS, CompileCache, Entry, configuration_key, is_module
from trainyard.store.compile_history import KEPT, append_history, history_key, read_history
from trainyard.store.documents import encode
from trainyard.store.manifests import FileEntry

VERSION = "neuronxcc-2.21.33363.0+82129205"
GOOD = Entry(
    f"{VERSION}/MODULE_1a+d4", (FileEntry("model.done", 0, "a" * 64), FileEntry("model.neff", 9, "b" * 64))
)
HISTORY = history_key("optimum", "trn2")


def cache(store: MemoryObjects) -> CompileCache:
    return CompileCache(store, "c0", clock=lambda: 0.0)


def test_entries_that_are_added_are_there_and_the_newer_of_two_stays() -> None:
    store = MemoryObjects()
    cache(store).add([replace(GOOD, by="r1")])
    cache(store).add([replace(GOOD, by="r2"), replace(GOOD, module=f"{VERSION}/MODULE_2b+d4")])
    assert [(entry.module[-5:], entry.by) for entry in cache(store).read().entries] == [
        ("1a+d4", "r2"),
        ("2b+d4", ""),
    ]


def test_another_writer_in_between_is_kept() -> None:
    store = MemoryObjects()
    other = replace(GOOD, module=f"{VERSION}/MODULE_2b+d4")
    store.before_write = lambda: assert_added(store, other)
    cache(store).add([GOOD])
    assert {entry.module for entry in cache(store).read().entries} == {GOOD.module, other.module}


def assert_added(store: MemoryObjects, entry: Entry) -> None:
    cache(store).add([entry])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((("model.log", 5),), "failed"),
        ((("model.done", 0), ("model.log", 5), ("model.neff", 9)), "failed"),
        ((("model.neff", 9),), "lacks"),
        ((("model.done", 0), ("model.neff", 0)), "lacks"),
        ((("model.done", 0), ("model.neff", 9), ("model.hlo_module.pb.lock", 0)), "no part"),
    ],
)
def test_a_failed_or_unfinished_entry_is_never_shared(files: tuple[tuple[str, int], ...], words: str) -> None:
    entry = Entry(GOOD.module, tuple(FileEntry(name, size, "a" * 64) for name, size in files))
    assert words in entry.fault
    with pytest.raises(PermanentError, match=words):
        cache(MemoryObjects()).add([entry])


def test_what_was_dropped_is_told_and_the_list_stays_short() -> None:
    store = MemoryObjects()
    for number in range(KEPT_FAULTS + 5):
        cache(store).add([GOOD])
        cache(store).drop({GOOD.module: f"reason {number}"})
    index = cache(store).read()
    assert index.entries == ()
    assert len(index.faults) == KEPT_FAULTS
    assert index.faults[-1]["reason"] == f"reason {KEPT_FAULTS + 4}"


@pytest.mark.parametrize(
    "body",
    [
        b"{ half",
        encode({"schema": 1, "kind": "bundle"}),
        encode({"schema": 1, "kind": "compile-cache", "key": "other", "entries": [], "faults": []}),
        encode(
            {
                "schema": 1,
                "kind": "compile-cache",
                "key": "c0",
                "entries": [{"module": "../../etc", "files": [], "by": "", "at": ""}],
                "faults": [],
            }
        ),
    ],
)
def test_an_index_that_is_none_is_refused_and_can_be_begun_anew(body: bytes) -> None:
    store = MemoryObjects()
    store.put(cache(store).index_key, body)
    with pytest.raises(CorruptArtifact):
        cache(store).read()
    cache(store).reset("damaged")
    assert cache(store).read().entries == ()


@pytest.mark.parametrize("prefix", ["", "compile-cache", "/x/", "../x/", "a/../b/", "Blobs\n/"])
def test_a_prefix_is_a_plain_folder(prefix: str) -> None:
    with pytest.raises(PermanentError, match="prefix"):
        CompileCache(MemoryObjects(), "c0", prefix)


@given(st.text(max_size=40) | st.sampled_from([".", "..", "MODULE_1+2", "neuronxcc-1/../x"]))
def test_only_two_plain_folders_are_an_entry(text: str) -> None:
    for path in (text, f"neuronxcc-{text}/MODULE_1+2", f"{VERSION}/MODULE_{text}+2"):
        if is_module(path):
            assert ".." not in path
            assert path.count("/") == 1


def test_weights_are_no_part_of_a_configuration() -> None:
    inputs: dict[str, Any] = {"graph": {"layers": 2}, "tensor_parallel": 4}
    key = configuration_key(inputs)
    assert configuration_key({**inputs, "weights": {"a": "b"}}) == key
    assert configuration_key({**inputs, "tensor_parallel": 8}) != key


def test_a_history_keeps_the_newest() -> None:
    store = MemoryObjects()
    for number in range(KEPT + 3):
        append_history(store, HISTORY, {"number": number})
    assert [sample["number"] for sample in read_history(store, HISTORY)] == list(range(3, KEPT + 3))


def test_two_that_remember_at_once_are_both_remembered() -> None:
    store = MemoryObjects()
    store.before_write = lambda: append_history(store, HISTORY, {"number": 1})
    append_history(store, HISTORY, {"number": 2})
    assert [sample["number"] for sample in read_history(store, HISTORY)] == [1, 2]


def test_a_damaged_history_is_begun_anew() -> None:
    store = MemoryObjects()
    store.put(HISTORY, b"\x00")
    append_history(store, HISTORY, {"number": 1})
    assert read_history(store, HISTORY) == ({"number": 1},)
