"""Large content in and out, and trees on disk."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.faulty_s3 import Faulty, Rule
from tests.support.seaweed import S3Server
from trainyard.errors import CorruptArtifact, PermanentError, StoreUnavailable
from trainyard.store import keys, transfer, trees
from trainyard.store.blobs import put_blob
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest, publish_model
from trainyard.store.objects import Objects
from trainyard.store.trees import marker_name, materialise

# Smallest parts that S3 takes: several of them make a multipart upload in little time.
RANDOM = random.Random(1)
PART = 5 << 20
LARGE = RANDOM.randbytes(2 * PART + 12345)
SHA = "b" * 40


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PART_SIZE", PART)


@pytest.fixture
def shaky(faulty: Faulty, s3_server: S3Server, bucket: str) -> Objects:
    return Objects(s3_server.client(endpoint_url=faulty.endpoint, attempts=2), bucket)


def pieces(content: bytes, size: int = 700_001) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def unfinished_uploads(store: Objects) -> list[object]:
    return list(store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads", []))


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, len(LARGE)])
def test_a_stream_arrives_whole_whatever_its_size(store: Objects, size: int) -> None:
    seen: list[int] = []
    sent = transfer.upload(store, "k", pieces(LARGE[:size]), size=size, progress=seen.append)
    assert (sent.size, sent.sha256) == (size, hashlib.sha256(LARGE[:size]).hexdigest())
    assert store.get("k").body == LARGE[:size]
    assert sum(seen) == size


@pytest.mark.parametrize("size", [100, len(LARGE)])
def test_content_that_fails_its_check_never_becomes_visible(store: Objects, size: int) -> None:
    def refuse(size: int, sha256: str) -> None:
        raise CorruptArtifact("not what was promised")

    with pytest.raises(CorruptArtifact):
        transfer.upload(store, "k", pieces(LARGE[:size]), check=refuse)
    assert store.head_or_none("k") is None
    assert unfinished_uploads(store) == []


def test_a_source_that_breaks_leaves_no_upload_behind(store: Objects) -> None:
    def breaking() -> Iterator[bytes]:
        yield LARGE
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        transfer.upload(store, "k", breaking())
    assert store.head_or_none("k") is None
    assert unfinished_uploads(store) == []


def test_a_part_that_fails_is_sent_again(shaky: Objects, faulty: Faulty) -> None:
    faulty.rules = [Rule("status", match="partNumber=2"), Rule("reset", match="partNumber=1")]
    transfer.upload(shaky, "k", pieces(LARGE))
    assert shaky.get("k").body == LARGE


def test_an_upload_that_cannot_finish_is_a_typed_error_and_is_aborted(shaky: Objects, faulty: Faulty) -> None:
    faulty.rules = [Rule("status", match="partNumber=2", times=99)]
    with pytest.raises(StoreUnavailable, match="part 2"):
        transfer.upload(shaky, "k", pieces(LARGE))
    assert shaky.head_or_none("k") is None
    assert unfinished_uploads(shaky) == []


def test_a_lost_reply_to_the_last_step_of_an_upload_is_settled(shaky: Objects, faulty: Faulty) -> None:
    faulty.rules = [Rule("lost", method="POST", match="uploadId=")]
    transfer.upload(shaky, "k", pieces(LARGE))
    assert shaky.get("k").body == LARGE


def test_very_large_files_get_larger_parts_not_more_than_s3_allows() -> None:
    assert transfer.part_size_for(None) == PART
    assert -(-(1 << 40) // transfer.part_size_for(1 << 40)) <= 10_000


def model(store: Objects, files: dict[str, bytes]) -> ModelManifest:
    entries = tuple(FileEntry(path, len(body), put_blob(store, body)) for path, body in sorted(files.items()))
    return publish_model(store, ModelManifest("org/name", SHA, entries))[0]


FILES = {"config.json": b"{}", "a/b/empty": b"", "model.safetensors": LARGE}


def test_a_tree_is_materialised_and_not_fetched_twice(shaky: Objects, faulty: Faulty, tmp_path: Path) -> None:
    manifest = model(shaky, FILES)
    first = materialise(shaky, manifest.key, tmp_path)
    assert (first.fetched, first.kept, first.bytes) == (3, 0, manifest.size)
    for path, body in FILES.items():
        assert (tmp_path / path).read_bytes() == body
    faulty.seen.clear()
    assert materialise(shaky, manifest.key, tmp_path).kept == 3
    assert [line for line in faulty.seen if "blobs/" in line] == []


def test_after_a_restart_in_the_middle_only_what_is_missing_is_fetched(
    store: Objects, tmp_path: Path
) -> None:
    manifest = model(store, FILES)
    materialise(store, manifest.key, tmp_path)
    (tmp_path / marker_name(manifest.key)).unlink()
    (tmp_path / "config.json").unlink()
    (tmp_path / ".model.safetensors.12345678.part").write_bytes(b"half")
    again = materialise(store, manifest.key, tmp_path)
    assert (again.fetched, again.kept) == (1, 2)
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_that_was_changed_on_disk_is_fetched_again(store: Objects, tmp_path: Path) -> None:
    manifest = model(store, FILES)
    materialise(store, manifest.key, tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(1000)
        file.write(bytes([LARGE[1000] ^ 1]))
    assert materialise(store, manifest.key, tmp_path).fetched == 1
    assert (tmp_path / "model.safetensors").read_bytes() == LARGE


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(store: Objects, tmp_path: Path) -> None:
    manifest = model(store, {"config.json": b"{}"})
    outside = tmp_path / "outside"
    outside.write_bytes(b"{}")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "config.json").symlink_to(outside)
    assert materialise(store, manifest.key, tmp_path / "tree").fetched == 1
    assert not (tmp_path / "tree" / "config.json").is_symlink()


def test_damage_on_the_way_is_mended_by_fetching_again(
    shaky: Objects, faulty: Faulty, tmp_path: Path
) -> None:
    manifest = model(shaky, FILES)
    faulty.rules = [Rule("flip", method="GET", match="blobs/")]
    materialise(shaky, manifest.key, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == LARGE


def test_damage_at_rest_names_the_file_and_leaves_nothing_half(store: Objects, tmp_path: Path) -> None:
    manifest = model(store, FILES)
    entry = next(found for found in manifest.files if found.path == "model.safetensors")
    store.put(keys.blob(entry.sha256), LARGE[:-1] + bytes([LARGE[-1] ^ 1]))
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors is damaged in S3"):
        materialise(store, manifest.key, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / marker_name(manifest.key)).exists()
    assert not list(tmp_path.rglob("*.part"))


def test_a_blob_that_is_gone_or_short_names_the_file(store: Objects, tmp_path: Path) -> None:
    manifest = model(store, {"config.json": b"{}"})
    key = keys.blob(manifest.files[0].sha256)
    store.put(key, b"{")
    with pytest.raises(CorruptArtifact, match=r"config\.json"):
        materialise(store, manifest.key, tmp_path)
    store.put(key, b"")
    with pytest.raises(CorruptArtifact, match=r"config\.json"):
        materialise(store, manifest.key, tmp_path)
    store.delete(key)
    with pytest.raises(CorruptArtifact, match=r"config\.json"):
        materialise(store, manifest.key, tmp_path)


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    store: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = model(store, {"config.json": b"{}"})
    monkeypatch.setattr(trees, "SPARE_BYTES", 1 << 60)
    with pytest.raises(PermanentError, match="ephemeral storage"):
        materialise(store, manifest.key, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_ranges_come_in_order_with_and_without_a_pool(store: Objects) -> None:
    store.put("k", LARGE)
    with ThreadPoolExecutor(4) as pool:
        for given in (None, pool):
            assert b"".join(transfer.read_chunks(store, "k", len(LARGE), pool=given)) == LARGE
