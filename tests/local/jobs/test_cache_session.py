"""The compile cache in S3 around a compile that writes its entries at once: what comes down, what goes up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_for
from trainyard.jobs.compile_cache import Session, options_of
from trainyard.store.compile_cache import CompileCache
from trainyard.store.objects import Objects
from trainyard.store.writers import WriterLease

KEY = "c0ffee"
VERSION = "neuronxcc-2.21.33363.0+82129205"


@pytest.fixture
def open_session(store: Objects, tmp_path: Path) -> Callable[..., tuple[Session, Path]]:
    """A session on a disk of its own, and the folder of its cache."""

    def _open(disk: str, **cache: Any) -> tuple[Session, Path]:
        given = {"kind": "neuronx", "dir": str(tmp_path / disk), "key": KEY, "lease_seconds": 60, **cache}
        options = options_of({"cache": given})
        assert options.dir is not None
        return Session(store, options, disk), options.dir

    return _open


def write_entry(folder: Path, number: int) -> None:
    entry = folder / VERSION / f"MODULE_{number:020x}+d41d8cd9"
    entry.mkdir(parents=True)
    names = ("model.neff", "model.hlo_module.pb", "compile_flags.json", "wrapped_neff.hlo")
    for name in names:
        (entry / name).write_bytes(name.encode() * (number + 1))
    (entry / "model.done").touch()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage(store: Objects, how: str) -> None:
    cache = CompileCache(store, KEY)
    index = cache.read()
    neff = next(file for file in index.entries[0].files if file.path == "model.neff")
    if how == "flipped":
        store.put(cache.blob(neff.sha256), b"\0" * neff.size)
    elif how == "cut":
        store.put(cache.blob(neff.sha256), b"short")
    elif how == "gone":
        store.delete(cache.blob(neff.sha256))
    elif how == "poisoned":
        document = index.to_json()
        files = document["entries"][0]["files"]
        files[:] = [file for file in files if file["path"] not in ("model.neff", "model.done")]
        files.append({"path": "model.log", "size": 5, "sha256": neff.sha256})
        store.put(cache.index_key, json.dumps(document).encode())
    else:
        store.put(cache.index_key, b"{ half")


def fill(open_session: Callable[..., tuple[Session, Path]]) -> Path:
    session, folder = open_session("one")
    with session.open():
        write_entry(folder, 1)
        write_entry(folder, 2)
        session.keep()
    return folder


@pytest.mark.parametrize(
    ("how", "left"), [("none", 2), ("flipped", 1), ("cut", 1), ("gone", 1), ("poisoned", 1), ("index", 0)]
)
def test_only_what_is_whole_and_right_comes_down(
    open_session: Callable[..., tuple[Session, Path]], store: Objects, how: str, left: int
) -> None:
    original = contents(fill(open_session))
    if how != "none":
        damage(store, how)
    session, folder = open_session("two")
    with session.open() as report:
        assert (report.brought, report.corrupt) == (left, int(how != "none"))
        assert len(contents(folder)) == left * 5
        assert contents(folder).items() <= original.items()
        assert not list(folder.glob(".*"))
    index = CompileCache(store, KEY).read()
    assert len(index.entries) == left
    assert bool(index.faults) == (how != "none")


def test_what_is_complete_is_taken_though_another_pod_writes(
    open_session: Callable[..., tuple[Session, Path]], store: Objects
) -> None:
    fill(open_session)
    assert WriterLease(store, CompileCache(store, KEY).writer_key, "other-release", 60.0).acquire()
    session, _ = open_session("two", wait_seconds=0)
    with session.open() as report:
        assert (report.brought, report.waited_for) == (2, "")


def test_entries_of_another_compiler_stay_where_they_are(
    open_session: Callable[..., tuple[Session, Path]],
) -> None:
    fill(open_session)
    for compiler, brought in (("9.9", 0), ("2.21.33363.0", 2)):
        session, _ = open_session(compiler, compiler=compiler)
        with session.open() as report:
            assert report.brought == brought


def test_equal_contents_are_stored_once(
    open_session: Callable[..., tuple[Session, Path]], store: Objects
) -> None:
    fill(open_session)
    session, folder = open_session("two", key="0ther")
    with session.open():
        write_entry(folder, 1)
        session.keep()
    # Four contents an entry, and the empty model.done of all.
    assert len(list(store.list("compile-cache/blobs/"))) == 2 * 4 + 1


def test_a_writer_that_lost_the_key_writes_nothing(
    open_session: Callable[..., tuple[Session, Path]], store: Objects
) -> None:
    session, folder = open_session("one", lease_seconds=0.3)
    with session.open():
        write_entry(folder, 1)
        stolen = json.loads(store.get(CompileCache(store, KEY).writer_key).body)
        store.put(CompileCache(store, KEY).writer_key, json.dumps({**stolen, "holder": "other"}).encode())
        wait_for(lambda: session.has_lost_the_key)
        session.keep()
    assert CompileCache(store, KEY).read().entries == ()
    assert json.loads(store.get(CompileCache(store, KEY).writer_key).body)["holder"] == "other"
