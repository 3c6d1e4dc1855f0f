"""Staging and publishing whole trees: by S3's own word, small files in packs, one winner."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import publish_folder, publish_staged, read_tree, stage_folder, write_tree
from tests.support.faulty_s3 import Faulty, Rule
from tests.support.seaweed import S3Server
from trainyard.errors import CorruptArtifact
from trainyard.store import keys, transfer
from trainyard.store.bundles import read_bundle
from trainyard.store.manifests import blobs_of
from trainyard.store.objects import Objects
from trainyard.store.trees import materialise, read_file

RANDOM = random.Random(1)
REPOSITORY = Path(__file__).parents[3]
PART = 5 << 20
LARGE = RANDOM.randbytes(2 * PART + 777)
MANY = {f"graphs/{number % 7}/{number:03}.bin": bytes([number % 256]) * (number * 7) for number in range(200)}
TREE = {**MANY, "model.pt": LARGE, "z/empty": b""}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PART_SIZE", PART)


@pytest.fixture
def shaky(faulty: Faulty, s3_server: S3Server, bucket: str) -> Objects:
    return Objects(s3_server.client(endpoint_url=faulty.endpoint, attempts=2), bucket)


def test_a_tree_of_many_small_files_moves_in_a_few_requests_each_way(
    shaky: Objects, faulty: Faulty, tmp_path: Path
) -> None:
    published = publish_folder(shaky, write_tree(tmp_path / "made", TREE))
    assert len(faulty.seen) < 40
    faulty.seen.clear()
    materialise(shaky, published.manifest.key, tmp_path / "there")
    assert len(faulty.seen) < 10
    assert read_tree(tmp_path / "there") == TREE
    faulty.seen.clear()
    assert materialise(shaky, published.manifest.key, tmp_path / "there").kept == len(TREE)
    assert faulty.seen == [f"GET /{shaky.bucket}/{published.manifest.key}"]


def test_every_blob_that_a_manifest_needs_is_there_and_nothing_else_is(
    store: Objects, tmp_path: Path
) -> None:
    manifest = publish_folder(store, write_tree(tmp_path, TREE)).manifest
    there = {info.key: info.size for info in store.list("blobs/")}
    assert there == {keys.blob(digest): size for digest, size in blobs_of(manifest).items()}


def test_one_file_of_a_pack_is_read_and_verified_by_itself(store: Objects, tmp_path: Path) -> None:
    manifest = publish_folder(store, write_tree(tmp_path, TREE)).manifest
    entry = next(found for found in manifest.files if found.path == "graphs/3/150.bin")
    assert entry.pack is not None
    assert read_file(store, entry) == MANY[entry.path]


def test_files_of_a_pack_that_are_not_wanted_are_left_out(store: Objects, tmp_path: Path) -> None:
    manifest = publish_folder(store, write_tree(tmp_path / "made", TREE)).manifest
    materialise(store, manifest.key, tmp_path / "there", without=("graphs/[0-5]/*", "model.pt"))
    wanted = {path: body for path, body in TREE.items() if path.startswith(("graphs/6", "z/"))}
    assert read_tree(tmp_path / "there") == wanted


def test_what_s3_vouched_for_at_the_upload_is_not_read_back(
    shaky: Objects, faulty: Faulty, tmp_path: Path
) -> None:
    prefix = stage_folder(shaky, write_tree(tmp_path, TREE))
    faulty.seen.clear()
    assert publish_staged(shaky, prefix).copied
    read = [line for line in faulty.seen if line.startswith("GET") and "/staging/" in line]
    assert read == [f"GET /{shaky.bucket}/{prefix}result.json"]


@pytest.mark.parametrize("name", ["files/model.pt", "packs/00000"])
def test_what_was_replaced_after_the_upload_is_never_published(
    store: Objects, tmp_path: Path, name: str
) -> None:
    prefix = stage_folder(store, write_tree(tmp_path, TREE))
    body = bytearray(store.get(prefix + name).body)
    body[len(body) // 2] ^= 1
    store.put(prefix + name, bytes(body))
    with pytest.raises(CorruptArtifact, match=name):
        publish_staged(store, prefix)
    assert store.head_or_none(keys.bundle_manifest("f1")) is None
    assert store.head_or_none(keys.bundle_damage("f1")) is None


@pytest.mark.parametrize("name", ["packs/00000", "files/model.pt"])
def test_what_is_damaged_on_its_way_to_s3_is_refused_there_and_sent_again(
    shaky: Objects, faulty: Faulty, tmp_path: Path, name: str
) -> None:
    faulty.rules = [Rule("flip_sent", method="PUT", match=name)]
    publish_folder(shaky, write_tree(tmp_path / "made", TREE))
    materialise(shaky, keys.bundle_manifest("f1"), tmp_path / "there")
    assert read_tree(tmp_path / "there") == TREE


def test_of_twenty_publishers_in_processes_of_their_own_exactly_one_wins(
    store: Objects, s3_server: S3Server, tmp_path: Path
) -> None:
    for number in range(20):
        folder = write_tree(tmp_path / str(number), {"config.json": b"%d" % number})
        stage_folder(store, folder, f"try{number}")
    paths = [str(REPOSITORY), str(REPOSITORY / "include")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.publishers", "20", store.bucket],
        env={**os.environ, **s3_server.environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    assert sorted(how for how, _ in told) == ["adopted"] * 19 + ["created"]
    assert {digest for _, digest in told} == {read_bundle(store, "f1").files[0].sha256}
