"""Damage at rest and on the way: named, set aside, and mended by the next release."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from pathlib import Path

import pytest

from tests.support.bundles import publish_folder, publish_staged, read_tree, stage_folder, write_tree
from tests.support.faulty_s3 import Faulty, Rule
from tests.support.seaweed import S3Server
from trainyard.errors import CorruptArtifact, PermanentError, StoreUnavailable
from trainyard.store import damage, downloads, keys, placing
from trainyard.store.blobs import put_blob
from trainyard.store.bundles import Published, bundle_usable, read_bundle
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest, publish_model
from trainyard.store.objects import Objects
from trainyard.store.trees import materialise

RANDOM = random.Random(1)
LARGE = RANDOM.randbytes(700_001)
TREE = {"model.pt": LARGE, **{f"small/{number:03}": b"%d" % number * 50 for number in range(80)}}
KEY = keys.bundle_manifest("f1")


@pytest.fixture
def shaky(faulty: Faulty, s3_server: S3Server, bucket: str) -> Objects:
    return Objects(s3_server.client(endpoint_url=faulty.endpoint, attempts=2), bucket)


@pytest.fixture
def bundle(store: Objects, tmp_path: Path) -> Published:
    return publish_folder(store, write_tree(tmp_path / "made", TREE))


def blob_of(bundle: Published, path: str) -> str:
    return next(entry.blob for entry in bundle.manifest.files if entry.path == path)


def spoil(store: Objects, digest: str, at: int) -> bytes:
    """Flip one bit where it lies; returns what lies there now."""
    body = bytearray(store.get(keys.blob(digest)).body)
    body[at] ^= 16
    store.put(keys.blob(digest), bytes(body))
    return bytes(body)


@pytest.mark.parametrize(("path", "at"), [("model.pt", 12345), ("small/040", 4321)])
def test_damage_at_rest_names_the_file_and_is_set_aside_and_the_next_release_mends_it(
    store: Objects, bundle: Published, tmp_path: Path, path: str, at: int
) -> None:
    if path != "model.pt":
        entry = next(entry for entry in bundle.manifest.files if entry.path == path)
        assert entry.pack is not None
        at = entry.pack.offset + 7
    digest = blob_of(bundle, path)
    damaged = spoil(store, digest, at)
    with pytest.raises(CorruptArtifact, match=f"{path} is damaged in S3"):
        materialise(store, KEY, tmp_path / "there")
    assert path not in read_tree(tmp_path / "there")

    assert store.head_or_none(keys.blob(digest)) is None
    aside = {info.key: store.get(info.key).body for info in store.list("quarantine/sha256/")}
    told = json.loads(next(body for key, body in aside.items() if key.endswith(".json")))
    assert damaged in aside.values()
    assert (told["key"], told["found_sha256"]) == (keys.blob(digest), hashlib.sha256(damaged).hexdigest())
    assert not bundle_usable(store, "f1")

    again = publish_folder(store, tmp_path / "made", "a2")
    assert (again.created, again.copied) == (True, 1)
    assert bundle_usable(store, "f1")
    materialise(store, KEY, tmp_path / "there")
    assert read_tree(tmp_path / "there") == TREE


def test_damage_on_the_way_condemns_nothing(
    shaky: Objects, faulty: Faulty, store: Objects, bundle: Published, tmp_path: Path
) -> None:
    faulty.rules = [Rule("flip", method="GET", match=blob_of(bundle, "model.pt"), times=2)]
    with pytest.raises(StoreUnavailable, match=r"model\.pt .* on the way"):
        materialise(shaky, KEY, tmp_path / "there")
    assert bundle_usable(store, "f1")
    materialise(shaky, KEY, tmp_path / "there")
    assert read_tree(tmp_path / "there") == TREE


@pytest.mark.parametrize("kind", ["flip", "cut", "status", "reset", "trickle"])
def test_one_fault_on_the_way_is_mended_by_reading_again(
    shaky: Objects, faulty: Faulty, bundle: Published, tmp_path: Path, kind: str
) -> None:
    faulty.rules = [
        Rule(kind, method="GET", match=blob_of(bundle, path)) for path in ("model.pt", "small/000")
    ]
    materialise(shaky, KEY, tmp_path / "there")
    assert read_tree(tmp_path / "there") == TREE


def test_a_model_has_no_mark_its_file_is_fetched_anew_because_the_blob_is_gone(
    store: Objects, tmp_path: Path
) -> None:
    digest = put_blob(store, LARGE)
    manifest = ModelManifest("org/name", "a" * 40, (FileEntry("w.safetensors", len(LARGE), digest),))
    publish_model(store, manifest)
    spoil(store, digest, 5)
    with pytest.raises(CorruptArtifact, match=r"w\.safetensors is damaged in S3.*Release again"):
        materialise(store, manifest.key, tmp_path / "there")
    assert store.head_or_none(keys.blob(digest)) is None
    put_blob(store, LARGE)
    materialise(store, manifest.key, tmp_path / "there")


def test_an_account_that_may_only_read_says_what_is_left_to_do(
    shaky: Objects, faulty: Faulty, store: Objects, bundle: Published, tmp_path: Path
) -> None:
    spoil(store, blob_of(bundle, "model.pt"), 9)
    faulty.rules = [Rule(kind="status", method="PUT", status=403, times=99)]
    with pytest.raises(CorruptArtifact, match=r"model\.pt is damaged in S3") as caught:
        materialise(shaky, KEY, tmp_path / "there")
    assert f"Delete {KEY}" in str(caught.value)
    # Whoever reads that error may mark the bundle.
    assert bundle_usable(store, "f1")
    assert damage.condemn(store, "f1", "model.pt", str(caught.value))
    assert not bundle_usable(store, "f1")


def test_of_many_publishers_that_find_the_mark_exactly_one_replaces_the_bundle(
    store: Objects, bundle: Published, tmp_path: Path
) -> None:
    damage.condemn(store, "f1", "model.pt", "for the test")
    prefixes = [
        stage_folder(store, write_tree(tmp_path / str(number), {"a": b"%d" % number}), f"b{number}")
        for number in range(8)
    ]
    results: list[Published] = []
    together = threading.Barrier(8)

    def run(prefix: str) -> None:
        together.wait()
        results.append(publish_staged(store, prefix))

    threads = [threading.Thread(target=run, args=(prefix,)) for prefix in prefixes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.created for result in results) == 1
    assert {result.manifest.files for result in results} == {read_bundle(store, "f1").files}
    aside = [info.key for info in store.list("quarantine/bundles/f1/")]
    assert len(aside) == 1


def test_a_mark_is_void_once_another_manifest_stands_there(store: Objects, bundle: Published) -> None:
    damage.condemn(store, "f1", "model.pt", "for the test")
    body = json.loads(store.get(KEY).body)
    store.put(KEY, json.dumps({**body, "log_key": "another"}).encode())
    assert bundle_usable(store, "f1")


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema":1,"kind":"bundle"}', b'{"schema":1}'])
def test_a_manifest_that_cannot_be_read_is_replaced(
    store: Objects, bundle: Published, tmp_path: Path, content: bytes
) -> None:
    store.put(KEY, content)
    assert not bundle_usable(store, "f1")
    assert publish_folder(store, tmp_path / "made", "a2").created
    assert bundle_usable(store, "f1")


def test_a_manifest_of_a_newer_trainyard_is_neither_used_nor_replaced(
    store: Objects, bundle: Published, tmp_path: Path
) -> None:
    newer = store.get(KEY).body.replace(b'"schema":1', b'"schema":99')
    store.put(KEY, newer)
    with pytest.raises(PermanentError, match="newer"):
        publish_folder(store, tmp_path / "made", "a2")
    assert store.get(KEY).body == newer


@pytest.mark.parametrize("module", [downloads, placing])
def test_a_full_disk_is_a_typed_error_and_leaves_nothing_half(
    store: Objects, bundle: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_all" if module is downloads else "_write", full)
    with pytest.raises(PermanentError, match="No space left"):
        materialise(store, KEY, tmp_path / "there")
    assert not list((tmp_path / "there").rglob(".*"))
    assert bundle_usable(store, "f1")
