"""An S3 that answers 500 and 503, resets, trickles, loses replies; a disk that is full.

Each of fetch, publish and materialise finishes or says which error it was, and leaves no temporary file and
no upload of a publisher.

The uploads of a fetch that gave up stay: the next try goes on with them, and housekeeping ends old ones.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.artifacts import INPUTS, bundle_files, model_files, publish_on_hub, stage
from tests.support.faulty_s3 import Faulty, Rule
from tests.support.hub import LocalHub
from tests.support.watcher import Watcher
from trainyard.errors import NotFound, PermanentError, StoreUnavailable, TrainyardError
from trainyard.hub import Hub
from trainyard.jobs.fetch import fetch
from trainyard.store.bundles import publish_bundle, read_bundle
from trainyard.store.models import read_model
from trainyard.store.objects import Objects
from trainyard.store.staging import stage_tree
from trainyard.store.trees import materialise

REPO = "tests/Shaken"
FILES = model_files(7, (8 << 20, 200_000))
ALWAYS = 10**6


def leftovers(folder: Path) -> list[Path]:
    """Temporary files: what is neither a file of the tree nor a marker that says what is there."""
    return [path for path in folder.rglob("*") if path.is_file() and ".part" in path.name]


def uploads(store: Objects) -> list[str]:
    listed = store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads", [])
    return [upload["Key"] for upload in listed]


@pytest.fixture
def watcher(store: Objects) -> Iterator[Watcher]:
    found = Watcher(store)
    yield found
    found.look()
    assert found.wrong == []


@pytest.fixture
def revision(hub: LocalHub) -> str:
    return publish_on_hub(hub, REPO, FILES)


PASSING = {
    "500 on parts": [Rule("status", "PUT", "partNumber", 2, 500)],
    "503 SlowDown everywhere": [
        Rule("status", method, "", 2, 503) for method in ("PUT", "GET", "HEAD", "POST")
    ],
    "resets of uploads": [Rule("reset", "PUT", "blobs", 2)],
    "a lost reply to the completion": [Rule("lost", "POST", "uploadId", 1)],
    "a lost reply to the manifest": [Rule("lost", "PUT", "manifest", 1)],
    "lost replies to parts": [Rule("lost", "PUT", "partNumber", 2)],
}


@pytest.mark.parametrize("name", sorted(PASSING))
def test_a_fetch_survives_what_passes_by_itself(
    store: Objects, shaky: Objects, faulty: Faulty, hub: LocalHub, revision: str, name: str, watcher: Watcher
) -> None:
    faulty.rules[:] = [Rule(**vars(rule)) for rule in PASSING[name]]
    manifest, _, _ = fetch(shaky, Hub(hub.endpoint), REPO, revision)
    assert read_model(store, REPO, revision).files == manifest.files
    assert all(rule.times == 0 for rule in faulty.rules if rule.method in ("PUT",))
    assert uploads(store) == []


@pytest.mark.parametrize(
    "rule",
    [
        Rule("status", "PUT", "partNumber", ALWAYS, 500),
        Rule("status", "PUT", "", ALWAYS, 503),
        Rule("reset", "PUT", "partNumber", ALWAYS),
        Rule("status", "POST", "uploadId", ALWAYS, 500),
    ],
    ids=["500 on parts", "503 on writes", "resets", "500 on completions"],
)
def test_a_fetch_that_cannot_finish_says_so_and_the_next_one_does(
    store: Objects, shaky: Objects, faulty: Faulty, hub: LocalHub, revision: str, rule: Rule, watcher: Watcher
) -> None:
    faulty.rules[:] = [rule]
    with pytest.raises(StoreUnavailable):
        fetch(shaky, Hub(hub.endpoint), REPO, revision)
    with pytest.raises(NotFound):
        read_model(store, REPO, revision)
    watcher.look()
    faulty.rules.clear()
    fetch(shaky, Hub(hub.endpoint), REPO, revision)
    assert uploads(store) == []


@pytest.mark.parametrize(
    "rules",
    [
        [Rule("status", "PUT", "blobs", 2, 500), Rule("status", "HEAD", "", 2, 503)],
        [Rule("reset", "PUT", "manifest", 1)],
        [Rule("lost", "PUT", "", 2)],
        [Rule("trickle", "GET", "", 3)],
    ],
    ids=["5xx", "reset", "lost", "trickle"],
)
def test_a_publish_survives_what_passes_by_itself(
    store: Objects, shaky: Objects, faulty: Faulty, rules: list[Rule], watcher: Watcher
) -> None:
    prefix = stage(store, "f1", "try1", bundle_files(1, (100_000, 3000)))
    faulty.rules[:] = [Rule(**vars(rule)) for rule in rules]
    published = publish_bundle(
        shaky, "f1", prefix, inputs=INPUTS, engine="optimum", versions={}, target="trn2"
    )
    assert read_bundle(store, "f1") == published.manifest


@pytest.mark.parametrize("kind", ["500", "503", "reset"])
def test_a_publish_that_cannot_finish_shows_nothing(
    store: Objects, shaky: Objects, faulty: Faulty, kind: str, watcher: Watcher
) -> None:
    prefix = stage(store, "f1", "try1", bundle_files(1, (100_000, 3000)))
    rule = Rule("reset" if kind == "reset" else "status", "PUT", "", ALWAYS)
    rule.status = 503 if kind == "reset" else int(kind)
    faulty.rules[:] = [rule]
    with pytest.raises(StoreUnavailable):
        publish_bundle(shaky, "f1", prefix, inputs=INPUTS, engine="optimum", versions={}, target="trn2")
    with pytest.raises(NotFound):
        read_bundle(store, "f1")


def test_staging_that_cannot_finish_ends_its_uploads(
    store: Objects, shaky: Objects, faulty: Faulty, tmp_path: Path
) -> None:
    (tmp_path / "large.neff").write_bytes(bytes(18 << 20))
    faulty.rules[:] = [Rule("status", "PUT", "partNumber=3", ALWAYS, 500)]
    with pytest.raises(StoreUnavailable):
        stage_tree(shaky, "staging/f1/try1/", tmp_path, [Path("large.neff")])
    assert uploads(store) == []


@pytest.mark.parametrize(
    "rules",
    [
        [Rule("status", "GET", "blobs", 2, 500)],
        [Rule("status", "GET", "", 2, 503)],
        [Rule("reset", "GET", "blobs", 2)],
        [Rule("cut", "GET", "blobs", 2)],
        [Rule("trickle", "GET", "blobs", 3)],
    ],
    ids=["500", "503", "reset", "cut", "trickle"],
)
def test_a_pod_gets_its_files_from_an_s3_that_stumbles(
    store: Objects,
    shaky: Objects,
    faulty: Faulty,
    hub: LocalHub,
    revision: str,
    rules: list[Rule],
    tmp_path: Path,
) -> None:
    manifest, _, _ = fetch(store, Hub(hub.endpoint), REPO, revision)
    faulty.rules[:] = [Rule(**vars(rule)) for rule in rules]
    materialise(shaky, manifest.key, tmp_path)
    assert {path: (tmp_path / path).read_bytes() for path in FILES} == FILES
    assert all(rule.times == 0 for rule in faulty.rules)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", ["status", "reset", "cut"])
def test_a_pod_that_cannot_get_its_files_says_so_and_leaves_nothing_half_written(
    store: Objects, shaky: Objects, faulty: Faulty, hub: LocalHub, revision: str, kind: str, tmp_path: Path
) -> None:
    manifest, _, _ = fetch(store, Hub(hub.endpoint), REPO, revision)
    faulty.rules[:] = [Rule(kind, "GET", "blobs", ALWAYS)]
    with pytest.raises(TrainyardError) as caught:
        materialise(shaky, manifest.key, tmp_path)
    assert isinstance(caught.value, StoreUnavailable)
    assert leftovers(tmp_path) == []
    faulty.rules.clear()
    materialise(shaky, manifest.key, tmp_path)
    assert {path: (tmp_path / path).read_bytes() for path in FILES} == FILES


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB. Mounting takes rights that not everybody has."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("told", [True, False])
def test_a_full_disk_is_an_error_with_a_way_out_and_its_temporary_files_are_gone(
    store: Objects,
    hub: LocalHub,
    revision: str,
    small_disk: Path,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """told: the disk says beforehand that it is too small; else it fills up while files are written."""
    manifest, _, _ = fetch(store, Hub(hub.endpoint), REPO, revision)
    if not told:
        free_of(monkeypatch, lambda: 1 << 40)
    with pytest.raises(PermanentError, match="storage"):
        materialise(store, manifest.key, small_disk / "model")
    assert leftovers(small_disk) == []
    for path in (small_disk / "model").rglob("*"):
        name = path.relative_to(small_disk / "model").as_posix()
        assert path.name.startswith(".") or path.is_dir() or path.read_bytes() == FILES[name]


def free_of(monkeypatch: pytest.MonkeyPatch, free: Callable[[], int]) -> None:
    """Let the check before the work see more than there is."""
    import shutil

    real = shutil.disk_usage

    def usage(path: str | Path) -> object:
        found = real(path)
        return type(found)(found.total, found.used, free())

    monkeypatch.setattr(shutil, "disk_usage", usage)
