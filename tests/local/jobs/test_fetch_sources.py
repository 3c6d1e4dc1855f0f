"""Models that come from S3 or a folder instead of the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.faulty_s3 import faulty_s3
from tests.support.seaweed import S3Server
from tests.support.shards import PART, write_model
from trainyard.errors import NotFound, PermanentError, Refused
from trainyard.hub import Hub
from trainyard.jobs import mirror
from trainyard.jobs.fetch import fetch_from
from trainyard.sources import open_source, parse
from trainyard.sources.base import Source
from trainyard.store import keys
from trainyard.store.objects import Objects

REPO = "tests/Elsewhere"
HUB = Hub("http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PART_SIZE", PART)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", PART + 500, 3000)


def uploaded(store: Objects, folder: Path) -> Source:
    for path in folder.iterdir():
        store.put(f"elsewhere/model/{path.name}", path.read_bytes())
    return open_source(parse(f"s3://{store.bucket}/elsewhere/model"), store, HUB)


def local(store: Objects, folder: Path) -> Source:
    return open_source(parse(f"file://{folder}"), store, HUB)


def check(store: Objects, source: Source, folder: Path) -> None:
    manifest, _, _ = fetch_from(store, source, REPO, source.pin())
    assert {entry.path for entry in manifest.files} == {path.name for path in folder.iterdir()}
    for entry in manifest.files:
        assert store.get(keys.blob(entry.sha256)).body == (folder / entry.path).read_bytes()


def test_a_folder_is_mirrored(store: Objects, folder: Path) -> None:
    check(store, local(store, folder), folder)


def test_a_prefix_is_copied_inside_s3(s3_server: S3Server, store: Objects, folder: Path) -> None:
    with faulty_s3(s3_server.endpoint) as proxy:
        through = Objects(s3_server.client(endpoint_url=proxy.endpoint), store.bucket)
        source = uploaded(store, folder)
        source = open_source(parse(f"s3://{store.bucket}/elsewhere/model"), through, HUB)
        check(through, source, folder)
        assert not [line for line in proxy.seen if "partNumber" in line]


def test_the_same_content_from_elsewhere_is_not_sent_again(store: Objects, folder: Path) -> None:
    check(store, local(store, folder), folder)
    source = uploaded(store, folder)
    assert fetch_from(store, source, "tests/Other", source.pin())[1:] == (0, 0)


@pytest.mark.parametrize("kind", [uploaded, local])
def test_what_changed_since_it_was_pinned_is_refused(store: Objects, folder: Path, kind: object) -> None:
    assert callable(kind)
    pinned = kind(store, folder).pin()
    (folder / "config.json").write_text(json.dumps({"model_type": "other"}))
    with pytest.raises(PermanentError, match="changed since"):
        fetch_from(store, kind(store, folder), REPO, pinned)


def test_the_policy_holds_for_every_source(store: Objects, folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("import os")
    for source in (local(store, folder), uploaded(store, folder)):
        with pytest.raises(Refused, match=r"modeling_evil\.py"):
            fetch_from(store, source, REPO, "a" * 40)
    assert not list(store.list(keys.BLOBS))


def test_a_symlink_in_a_folder_is_refused(store: Objects, folder: Path) -> None:
    (folder / "tokenizer.json").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="symlink"):
        local(store, folder).pin()


def test_a_source_that_is_not_there_says_so(store: Objects, tmp_path: Path) -> None:
    for text in (f"file://{tmp_path}/nothing", f"s3://{store.bucket}/nothing"):
        with pytest.raises(NotFound):
            open_source(parse(text), store, HUB).pin()
