"""A hundred random bit flips: at the source, on the way there and back, and at rest. Each one is caught.

Caught: either what arrives is right (it was moved once more), or an error names the file and nothing wrong
was delivered. TRAINYARD_FAULT_SEED chooses other ones.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.artifacts import INPUTS, bundle_files, model_files, publish_on_hub, stage
from tests.support.faulty_s3 import Faulty, Rule
from tests.support.hub import LocalHub
from tests.support.watcher import Watcher
from trainyard.errors import CorruptArtifact, NotFound, StoreUnavailable, TrainyardError
from trainyard.hub import Hub
from trainyard.jobs.fetch import fetch
from trainyard.store import keys
from trainyard.store.bundles import publish_bundle, read_bundle
from trainyard.store.models import ModelManifest, read_model
from trainyard.store.objects import Objects
from trainyard.store.staging import staged_file
from trainyard.store.trees import materialise

SEED = int(os.environ.get("TRAINYARD_FAULT_SEED", "4"))
REPO = "tests/Flipped"
# One shard in one part; one in several, which takes thirty times as long.
SMALL, LARGE = (300_000, 70_000), (8 << 20,)
AT_SOURCE, SENT, RECEIVED, AT_REST, STAGED = 25, 25, 20, 20, 10


def check(store: Objects, manifest: ModelManifest, files: Mapping[str, bytes]) -> None:
    assert {entry.path: entry.sha256 for entry in manifest.files} == {
        path: hashlib.sha256(body).hexdigest() for path, body in files.items()
    }


def models(hub: LocalHub) -> list[tuple[str, str, dict[str, bytes]]]:
    """(repository, commit, files): two of the small ones for one large one."""
    small, large = model_files(SEED, SMALL), model_files(SEED + 9, LARGE)
    made = [
        (f"{REPO}-{name}", publish_on_hub(hub, f"{REPO}-{name}", files), files)
        for name, files in (("small", small), ("large", large))
    ]
    return [made[0], made[0], made[1]]


@pytest.fixture
def watcher(store: Objects) -> Watcher:
    """Looks when it is told to; what it verified it does not read again."""
    return Watcher(store)


def empty(store: Objects) -> None:
    for info in list(store.list("")):
        store.delete(info.key)


def delivered(folder: Path) -> dict[str, bytes]:
    """What a reader of the folder finds; hidden files are nobody's."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_flips_at_the_source(store: Objects, hub: LocalHub, watcher: Watcher) -> None:
    """Once: mended by fetching again, or refused. Always: refused. Never a wrong byte in a blob."""
    source, choices = random.Random(SEED), models(hub)
    caught = {"mended": 0, "refused": 0}
    for number in range(AT_SOURCE):
        empty(store)
        repo, revision, files = source.choice(choices)
        path = source.choice(sorted(files))
        offset, once = source.randrange(len(files[path])), number % 2 == 0
        place = "cdn-lfs" if path.endswith(".safetensors") else "resolve"
        rule = {"match": f"{place}/.*/{re.escape(path)}$", "method": "GET", "flip_bit": offset}
        # The Hub counts by rule: the delay makes each another one.
        hub.break_by({**rule, **({"count": 1} if once else {}), "delay": number * 1e-6})
        try:
            manifest, _, _ = fetch(store, Hub(hub.endpoint), repo, revision)
        except TrainyardError as error:
            told = str(error)
            with pytest.raises(NotFound):
                read_model(store, repo, revision)
            caught["refused"] += 1
        else:
            told = path
            check(store, manifest, files)
            caught["mended"] += 1
        assert path in told
        watcher.look()
        assert watcher.wrong == []
        hub.break_by()
    assert sum(caught.values()) == AT_SOURCE
    assert min(caught.values()) > 0


def test_flips_on_the_way_to_s3(
    store: Objects, shaky: Objects, faulty: Faulty, hub: LocalHub, watcher: Watcher
) -> None:
    source, choices = random.Random(SEED + 1), models(hub)
    flipped = 0
    for _ in range(SENT):
        empty(store)
        repo, revision, files = source.choice(choices)
        large = len(max(files.values(), key=len)) > 1 << 20
        where = source.choice(
            ["partNumber", "partNumber", "manifest"] if large else ["blobs/", "blobs/", "manifest"]
        )
        rule = Rule("flip_sent", "PUT", where, 1, at=source.random(), bit=source.randrange(8))
        faulty.rules[:] = [rule]
        try:
            manifest, _, _ = fetch(shaky, Hub(hub.endpoint), repo, revision)
        except TrainyardError as error:
            refused: type[TrainyardError] | None = type(error)
            with pytest.raises(NotFound):
                read_model(store, repo, revision)
        else:
            refused = None
            check(store, manifest, files)
            assert read_model(store, repo, revision).files == manifest.files
        watcher.look()
        assert watcher.wrong == []
        assert refused in (None, CorruptArtifact, StoreUnavailable)
        flipped += rule.times == 0
    assert flipped == SENT


def test_flips_on_the_way_from_s3(
    store: Objects, shaky: Objects, faulty: Faulty, hub: LocalHub, tmp_path: Path
) -> None:
    source = random.Random(SEED + 2)
    fetched = [
        (fetch(store, Hub(hub.endpoint), repo, revision)[0].key, files)
        for repo, revision, files in models(hub)
    ]
    flipped = 0
    for number in range(RECEIVED):
        into = tmp_path / str(number)
        key, files = source.choice(fetched)
        rule = Rule("flip", "GET", "blobs/", 1, at=source.random(), bit=source.randrange(8))
        faulty.rules[:] = [rule]
        materialise(shaky, key, into)
        assert delivered(into) == files
        shutil.rmtree(into)
        flipped += rule.times == 0
    assert flipped == RECEIVED


def test_flips_at_rest(store: Objects, hub: LocalHub, watcher: Watcher, tmp_path: Path) -> None:
    source, choices = random.Random(SEED + 3), models(hub)
    for repo, revision, _ in choices:
        fetch(store, Hub(hub.endpoint), repo, revision)
    for _ in range(AT_REST):
        repo, revision, files = source.choice(choices)
        manifest = read_model(store, repo, revision)
        into = tmp_path / repo.replace("/", "-")
        entry = source.choice(manifest.files)
        body = bytearray(files[entry.path])
        body[source.randrange(len(body))] ^= 1 << source.randrange(8)
        store.put(keys.blob(entry.sha256), bytes(body))
        (into / entry.path).unlink(missing_ok=True)
        with pytest.raises(CorruptArtifact, match=entry.path):
            materialise(store, manifest.key, into)
        for path, content in delivered(into).items():
            assert content == files[path]
        # Set aside or not: once the damaged blob is gone, a fetch brings it, and a pod gets it.
        store.delete(keys.blob(entry.sha256))
        check(store, fetch(store, Hub(hub.endpoint), repo, revision)[0], files)
        materialise(store, manifest.key, into)
        assert delivered(into) == files
    watcher.look()
    assert watcher.wrong == []


def test_flips_in_what_a_compile_staged(store: Objects, watcher: Watcher) -> None:
    source = random.Random(SEED + 4)
    for number in range(STAGED):
        fingerprint = f"f{number}"
        staged = bundle_files(number, (200_000, 5000))
        prefix = stage(store, fingerprint, "try1", staged)
        path = source.choice(sorted(staged))
        body = bytearray(staged[path])
        body[source.randrange(len(body))] ^= 1 << source.randrange(8)
        store.put(staged_file(prefix, path), bytes(body))
        with pytest.raises(CorruptArtifact, match=path):
            publish_bundle(
                store, fingerprint, prefix, inputs=INPUTS, engine="optimum", versions={}, target="trn2"
            )
        with pytest.raises(NotFound):
            read_bundle(store, fingerprint)
    watcher.look()
    assert watcher.wrong == []
