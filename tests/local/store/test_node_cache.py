"""The node's cache of blobs: shared by processes, bounded, and never trusted blindly."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.bundles import publish_folder, read_tree, write_tree
from tests.support.faulty_s3 import Faulty, Rule
from tests.support.seaweed import S3Server
from tests.support.waiting import wait_for
from trainyard.errors import CorruptArtifact
from trainyard.store import keys
from trainyard.store.bundles import Published
from trainyard.store.node_cache import Held, NodeCache, NoRoom
from trainyard.store.objects import Objects
from trainyard.store.trees import materialise

RANDOM = random.Random(1)
REPOSITORY = Path(__file__).parents[3]
TREE = {
    **{f"shard{number}": RANDOM.randbytes(300_000 + number) for number in range(4)},
    **{f"small/{number:03}": b"%d" % number for number in range(80)},
}
KEY = keys.bundle_manifest("f1")


@pytest.fixture
def seen(faulty: Faulty, s3_server: S3Server, bucket: str) -> Objects:
    """The store through a proxy that counts."""
    return Objects(s3_server.client(endpoint_url=faulty.endpoint, attempts=2), bucket)


@pytest.fixture
def bundle(store: Objects, tmp_path: Path) -> Published:
    return publish_folder(store, write_tree(tmp_path / "made", TREE))


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", 100_000_000)


def blob_reads(faulty: Faulty) -> list[str]:
    return [line.rpartition("/")[2] for line in faulty.seen if line.startswith("GET") and "/blobs/" in line]


def test_a_second_tree_on_the_node_reads_only_the_manifest_from_s3(
    seen: Objects, faulty: Faulty, bundle: Published, cache: NodeCache, tmp_path: Path
) -> None:
    assert materialise(seen, KEY, tmp_path / "one", cache=cache).cached == 0
    faulty.seen.clear()
    second = materialise(seen, KEY, tmp_path / "two", cache=cache)
    assert (second.cached, blob_reads(faulty)) == (second.bytes, [])
    assert read_tree(tmp_path / "one") == read_tree(tmp_path / "two") == TREE


def test_a_tree_on_another_disk_gets_copies(store: Objects, bundle: Published, cache: NodeCache) -> None:
    into = Path(f"/dev/shm/trainyard-test-{os.getpid()}")
    if not into.parent.is_dir():
        pytest.skip("there is no second file system here")
    try:
        materialise(store, KEY, into, cache=cache)
        assert read_tree(into) == TREE
        assert os.stat(into / "shard0").st_nlink == 1
    finally:
        subprocess.run(["rm", "-rf", str(into)], check=True)


def test_on_one_disk_a_tree_and_the_cache_share_their_bytes(
    store: Objects, bundle: Published, cache: NodeCache, tmp_path: Path
) -> None:
    materialise(store, KEY, tmp_path / "one", cache=cache)
    status = os.stat(tmp_path / "one" / "shard0")
    # Nobody may change the cache by way of a tree.
    assert (status.st_nlink, status.st_mode & 0o222) == (2, 0)


def test_what_rotted_in_the_cache_is_set_aside_and_fetched_again(
    seen: Objects, faulty: Faulty, bundle: Published, cache: NodeCache, tmp_path: Path
) -> None:
    materialise(seen, KEY, tmp_path / "one", cache=cache)
    for rotten in cache.blobs.iterdir():
        rotten.chmod(0o644)
        with rotten.open("r+b") as file:
            first = file.read(1)[0]
            file.seek(0)
            file.write(bytes([first ^ 1]))
    faulty.seen.clear()
    again = materialise(seen, KEY, tmp_path / "two", cache=cache)
    assert (again.cached, len(blob_reads(faulty))) == (0, 5)
    assert read_tree(tmp_path / "two") == TREE
    assert "content" in json.loads(next(cache.quarantine.glob("*.json")).read_text())["reason"]


def test_a_cut_blob_in_the_cache_is_set_aside(
    store: Objects, bundle: Published, cache: NodeCache, tmp_path: Path
) -> None:
    materialise(store, KEY, tmp_path / "one", cache=cache)
    for short in cache.blobs.iterdir():
        short.chmod(0o644)
        os.truncate(short, 10)
    materialise(store, KEY, tmp_path / "two", cache=cache)
    assert read_tree(tmp_path / "two") == TREE


def test_damage_in_s3_never_gets_into_the_cache(
    store: Objects, bundle: Published, cache: NodeCache, tmp_path: Path
) -> None:
    digest = next(entry.blob for entry in bundle.manifest.files if entry.path == "shard1")
    store.put(keys.blob(digest), bytes(len(TREE["shard1"])))
    with pytest.raises(CorruptArtifact, match="shard1 is damaged in S3"):
        materialise(store, KEY, tmp_path / "one", cache=cache)
    assert not (cache.blobs / digest).exists()
    assert list(cache.coming.iterdir()) == []


@pytest.mark.parametrize("most", [0, 500_000])
def test_a_cache_that_is_too_small_is_no_obstacle(
    store: Objects, bundle: Published, tmp_path: Path, most: int
) -> None:
    cache = NodeCache(tmp_path / "cache", most)
    materialise(store, KEY, tmp_path / "one", cache=cache)
    assert read_tree(tmp_path / "one") == TREE
    assert cache.used() <= most


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    store: Objects, bundle: Published, cache: NodeCache, tmp_path: Path
) -> None:
    cache.coming.rmdir()
    cache.coming.write_bytes(b"")
    materialise(store, KEY, tmp_path / "one", cache=cache)
    assert read_tree(tmp_path / "one") == TREE


def digest(number: int) -> str:
    return f"{number:064x}"


def keep(cache: NodeCache, number: int, size: int = 100) -> None:
    with cache.hold(digest(number), size, lambda file: None, lambda: None):
        pass


def names(cache: NodeCache) -> set[int]:
    return {int(path.name, 16) for path in cache.blobs.iterdir()}


def test_the_oldest_use_goes_first(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, 350)
    for number in (1, 2, 3):
        keep(cache, number)
    keep(cache, 1)
    keep(cache, 4)
    assert names(cache) == {1, 3, 4}
    assert cache.used() <= 350


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_blob_that_comes_to_its_place_during_the_count_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """Missed, it would let the cache grow beyond its bound; counted twice, it would keep others out."""
    cache = NodeCache(tmp_path, 1000)
    (cache.coming / digest(1)).write_bytes(bytes(100))
    seen: list[Path] = []

    def scan(folder: Path) -> Iterator[os.DirEntry[str]]:
        found = list(entries(folder))
        seen.append(folder)
        if len(seen) == looks:
            os.replace(cache.coming / digest(1), cache.blobs / digest(1))
        return iter(found)

    entries = os.scandir
    monkeypatch.setattr("trainyard.store.node_cache.os.scandir", scan)
    assert cache.used() == 100
    assert len(seen) == 3


def test_what_is_in_use_is_never_evicted(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, 250)
    with (
        cache.hold(digest(1), 100, lambda file: None, lambda: None) as one,
        cache.hold(digest(2), 100, lambda file: None, lambda: None),
    ):
        with pytest.raises(NoRoom):
            keep(cache, 3)
        assert one.path.exists()
    keep(cache, 3)
    assert names(cache) == {2, 3}
    os.link(cache.blobs / digest(2), tmp_path / "tree")
    keep(cache, 4)
    assert names(cache) == {2, 4}


def test_what_a_killed_process_left_makes_room(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, 250)
    (cache.coming / digest(9)).write_bytes(bytes(200))
    keep(cache, 1)
    assert list(cache.coming.iterdir()) == []


def test_whoever_cannot_bring_a_blob_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, 1000)

    def fail(file: int) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError), cache.hold(digest(1), 100, fail, lambda: None):
        pass
    keep(cache, 1)
    assert names(cache) == {1}


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(s3_server: S3Server, faulty: Faulty, bucket: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a materialise job, through the proxy."""
    started: list[subprocess.Popen[str]] = []

    def run(into: Path, *, cached: bool = True) -> subprocess.Popen[str]:
        job: dict[str, object] = {"bucket": bucket, "sources": [{"manifest": KEY, "into": str(into)}]}
        if cached:
            job["node_cache"] = {"folder": str(tmp_path / "cache"), "max_bytes": 100_000_000}
        environment = {
            **os.environ,
            **s3_server.environment,
            "AWS_ENDPOINT_URL_S3": faulty.endpoint,
            "PYTHONPATH": str(REPOSITORY / "include"),
            "TRAINYARD_JOB": json.dumps(job),
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "trainyard.jobs", "materialise"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        with suppress(OSError):
            process.kill()
        process.wait()


def test_two_pods_at_once_read_every_blob_from_s3_once(
    start: Start, faulty: Faulty, bundle: Published, tmp_path: Path
) -> None:
    processes = [start(tmp_path / name) for name in ("one", "two")]
    for process in processes:
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 0, output
    assert read_tree(tmp_path / "one") == read_tree(tmp_path / "two") == TREE
    assert sorted(blob_reads(faulty)) == sorted({entry.blob for entry in bundle.manifest.files})


@pytest.mark.parametrize("cached", [True, False])
def test_after_a_kill_in_the_middle_nothing_half_is_there_and_the_next_try_finishes(
    start: Start, faulty: Faulty, bundle: Published, tmp_path: Path, cached: bool
) -> None:
    slow = next(entry.blob for entry in bundle.manifest.files if entry.path == "shard2")
    faulty.rules = [Rule("half", method="GET", match=slow)]
    process = start(tmp_path / "one", cached=cached)
    wait_for(lambda: slow in blob_reads(faulty))
    time.sleep(0.2)  # for the half; the other one never comes
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = {path: body for path, body in read_tree(tmp_path / "one").items() if not path.endswith(".part")}
    assert "shard2" not in left
    assert left.items() <= TREE.items()
    assert not (tmp_path / "cache" / "blobs" / slow).exists()

    faulty.rules = []
    output, _ = (again := start(tmp_path / "one", cached=cached)).communicate(timeout=180)
    assert again.returncode == 0, output
    assert read_tree(tmp_path / "one") == TREE


def test_a_blob_stays_readable_for_who_holds_it_whatever_happens_to_its_name(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, 1000)
    with cache.hold(digest(1), 3, lambda file: _write(file, b"abc"), lambda: None) as held:
        other = Held(held.path, os.open(held.path, os.O_RDONLY), fresh=False)
        cache.condemn(other, "for the test")
        os.close(other.file)
        assert os.pread(held.file, 3, 0) == b"abc"
    assert names(cache) == set()


def _write(file: int, content: bytes) -> None:
    os.pwrite(file, content, 0)
