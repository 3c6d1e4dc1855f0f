"""Mark and sweep on the real server: what is named stays, what is not goes, and no publisher loses a blob."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import LocalHub
from trainyard.errors import CorruptArtifact, LeaseHeld, LeaseLost, PermanentError
from trainyard.hub import Hub
from trainyard.jobs.fetch import fetch
from trainyard.store import announcements, blobs, keys
from trainyard.store.announcements import Announcement, Condemning, wait_until_free
from trainyard.store.channels import Channels
from trainyard.store.documents import encode, timestamp
from trainyard.store.leases import Leases
from trainyard.store.ledger import Ledger
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest, publish_model
from trainyard.store.objects import Objects
from trainyard.store.retention import Policy
from trainyard.store.sweep import KINDS, Freed, Sweep, list_uploads
from trainyard.store.trees import materialise

DAY = 86400.0
REPO = "org/name"
# Everything that exists is old enough: the sweep's clock is far ahead.
POLICY = Policy(good=2, days=14)


def later(days: float = 100) -> Callable[[], float]:
    return lambda: time.time() + days * DAY


def sweep(
    store: Objects,
    kinds: tuple[str, ...] = KINDS,
    *,
    dry_run: bool = False,
    clock: Callable[[], float] | None = None,
) -> dict[str, Freed]:
    run = Sweep(store, POLICY, dry_run=dry_run, clock=clock or later())
    return {kind: run.run(kind) for kind in kinds}


def publish(store: Objects, number: int, shared: bytes = b"shared") -> ModelManifest:
    contents = {"config.json": shared, "model.safetensors": b"weights %d" % number * 100}
    files = []
    for path, body in contents.items():
        files.append(FileEntry(path, len(body), blobs.put_blob(store, body)))
    manifest = ModelManifest(REPO, f"{number:040x}", tuple(files), "2026-01-01T00:00:00Z", "hub")
    return publish_model(store, manifest)[0]


def bundle(store: Objects, number: int) -> str:
    body = b"neff %d" % number * 50
    digest = blobs.put_blob(store, body)
    key = keys.bundle_manifest(f"f{number}")
    files = [FileEntry("model.neff", len(body), digest).to_json()]
    named = {"fingerprint": f"f{number}", "log_key": f"logs/m/b{number}"}
    store.put(key, encode({"schema": 1, "kind": "bundle", "files": files, **named}))
    return key


def release(store: Objects, number: int, state: str = "promoted", age: float = 0.0, model: str = "m") -> str:
    """A record with a model and a bundle of its own. age: days before the sweep's clock."""
    name = f"{model}-{number}"
    changed = timestamp(later()() - age * DAY)
    Ledger(store).create(model, name, {
        "schema": 1, "id": name, "model": model, "state": state, "updated_at": changed,
        "plan": {"model_manifest": publish(store, number).key, "bundle_manifest": bundle(store, number),
                 "fingerprint_inputs": {"tp": number}},
    })  # fmt: skip
    for key in (f"logs/{model}/{name}/compile.log", f"staging/f{number}/{name}/result.json",
                f"measurements/{model}/{name}/load/samples.ndjson.gz"):  # fmt: skip
        store.put(key, b"x" * 10)
    return name


def there(store: Objects, prefix: str = "") -> set[str]:
    return {info.key for info in store.list(prefix)}


def test_after_a_sweep_every_kept_release_can_be_brought_back_and_the_others_are_gone(
    store: Objects, tmp_path: Path
) -> None:
    names = [release(store, number, age=90 - number) for number in range(6)]
    failed = release(store, 6, "failed", age=50)
    young = release(store, 7, "failed", age=1)
    running = release(store, 8, "running", age=60)
    for name in names:
        Channels(store).move("m", name, 0)
    looked = sweep(store, dry_run=True)
    before = there(store)
    freed = sweep(store)
    # The dry run said so to the byte, and changed nothing.
    for kind in ("manifests", "blobs", "logs"):
        assert (looked[kind].objects, looked[kind].bytes) == (freed[kind].objects, freed[kind].bytes)
    assert freed["manifests"].objects == 2 * 5
    assert before > there(store) - {announcements.CONDEMNED}
    for name in [names[5], names[4], young, running]:
        plan = Ledger(store).read("m", name).document["plan"]
        for key in (plan["model_manifest"], plan["bundle_manifest"]):
            assert materialise(store, key, tmp_path / name / key.partition("/")[0]).fetched
        assert f"logs/m/{name}/compile.log" in there(store)
    for name in [*names[:4], failed]:
        assert Ledger(store).read("m", name).document["id"] == name, "records are never swept"
        plan = Ledger(store).read("m", name).document["plan"]
        assert store.get_or_none(plan["model_manifest"]) is None
        assert f"logs/m/{name}/compile.log" not in there(store)
    assert there(store, "staging/") == {f"staging/f8/{running}/result.json"}
    # What is named is there, what is there is named.
    assert len(there(store, "blobs/")) == 1 + 2 * 4
    assert {kind: each.objects for kind, each in sweep(store).items()} == dict.fromkeys(KINDS, 0)


def test_what_is_young_is_never_swept(store: Objects) -> None:
    name = release(store, 1)
    Channels(store).move("m", name, 0)
    blobs.put_blob(store, b"on its way")
    store.put("staging/f9/other/files/x", b"x")
    publish(store, 2)
    before = there(store)
    assert sum(each.objects for each in sweep(store, clock=time.time).values()) == 0
    assert there(store) >= before


def test_who_holds_the_lease_keeps_its_bundle_whatever_its_record_says(store: Objects) -> None:
    first, second = release(store, 1), release(store, 2, "failed", age=80)
    Channels(store).move("m", first, 0)
    Leases(store).acquire("m", second, 60)
    sweep(store)
    assert store.get_or_none(keys.bundle_manifest("f2")) is not None


@pytest.mark.parametrize("damage", ["record", "newer record", "manifest", "lost record", "no releases"])
def test_a_sweep_that_cannot_know_what_is_named_deletes_nothing(store: Objects, damage: str) -> None:
    name = release(store, 1)
    Channels(store).move("m", name, 0)
    blobs.put_blob(store, b"unnamed")
    record = store.get(keys.release("m", name)).body
    if damage == "record":
        store.put(keys.release("m", name), b"{broken")
    elif damage == "newer record":
        store.put(keys.release("m", name), encode({**json.loads(record), "schema": 2}))
    elif damage == "manifest":
        store.put(keys.model_manifest(REPO, f"{1:040x}"), b"{}")
    else:
        store.delete(keys.release("m", name))
        if damage == "no releases":
            store.delete(keys.channel("m"))
    before = there(store, "blobs/") | there(store, "bundles/")
    with pytest.raises((CorruptArtifact, PermanentError)):
        sweep(store, ("manifests", "blobs"))
    assert there(store, "blobs/") | there(store, "bundles/") == before


def test_old_uploads_caches_and_announcements_go_and_are_counted(store: Objects) -> None:
    name = release(store, 1)
    Channels(store).move("m", name, 0)
    upload = store.client.create_multipart_upload(Bucket=store.bucket, Key="blobs/sha256/aa/x")["UploadId"]
    store.client.upload_part(
        Bucket=store.bucket, Key="blobs/sha256/aa/x", UploadId=upload, PartNumber=1, Body=b"p" * 5000
    )
    store.put("compile-cache/blobs/aa/" + "a" * 64, b"nobody names it")
    store.put("compile-cache/oldkey/index.json", b"{}")
    Announcement(store, "dead").protect(["blobs/x"])
    assert sweep(store, ("uploads",), clock=time.time)["uploads"].objects == 0
    freed = sweep(store, ("cache", "leftovers", "uploads"))
    assert (freed["uploads"].objects, freed["uploads"].bytes) == (1, 5000)
    assert freed["cache"].objects == 2
    assert freed["leftovers"].objects == 1
    assert not list(list_uploads(store))


def test_a_listing_of_many_pages_is_swept_whole(store: Objects) -> None:
    name = release(store, 1)
    Channels(store).move("m", name, 0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put(f"progress/{number:05}.json", b"{}"), range(1100)))
    assert sweep(store, ("leftovers",))["leftovers"].objects == 1100
    assert not there(store, "progress/")


def test_publishers_that_race_the_sweep_lose_no_blob(store: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers reuse old blobs that nothing names, while a sweep deletes those, three at a time."""
    monkeypatch.setattr("trainyard.store.sweep.BATCH", 3)
    Channels(store).move("m", release(store, 1), 0)
    contents = [b"content %d" % number for number in range(240)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda body: blobs.put_blob(store, body), contents))
    time.sleep(4.2)  # older than the grace period now, in whole seconds of S3's clock
    over = threading.Event()
    sent: list[str] = []
    reused: list[str] = []
    published: list[ModelManifest] = []

    def publisher(number: int) -> None:
        chance = random.Random(number)
        while not over.is_set():
            announcement = Announcement(store, f"p{number}")
            wanted = {hashlib.sha256(body).hexdigest(): body for body in chance.sample(contents, 4)}
            announcement.protect_blobs(wanted)
            for digest, body in wanted.items():
                there = blobs.has_blob(store, digest, len(body))
                (reused if there else sent).append(digest)
                if not there:
                    store.put(keys.blob(digest), body)
            files = tuple(FileEntry(digest, len(body), digest) for digest, body in wanted.items())
            revision = hashlib.sha1(f"{number} {len(published)}".encode()).hexdigest()
            published.append(publish_model(store, ModelManifest(REPO, revision, tuple(sorted(files))))[0])

    # A mark is good for half a grace period, too little here for a slow machine, so the clock stands. The
    # limit guards against a sweep of announcements, and none runs.
    run = Sweep(store, Policy(grace_hours=3 / 3600, days=0), dry_run=False, monotonic=lambda: 0.0)
    with ThreadPoolExecutor(4) as pool:
        racing = [pool.submit(publisher, number) for number in range(4)]
        try:
            freed = run.run("blobs")
            deadline = time.monotonic() + 120
            while freed.objects and not sent and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            over.set()
        for each in racing:
            each.result()
    there = {info.key for info in store.list("blobs/")}
    named = {keys.blob(entry.sha256) for manifest in published for entry in manifest.files}
    assert named <= there
    assert reused
    assert sent
    assert freed.objects


@pytest.mark.parametrize("first", ["publisher", "sweep"])
def test_of_a_publisher_and_a_sweep_one_sees_the_other(store: Objects, first: str) -> None:
    """The two orders in which the announcement and the condemnation can come, step by step."""
    key = keys.blob(blobs.put_blob(store, b"old and unnamed"))
    sweeper, publisher = Condemning(store), Announcement(store, "p")
    if first == "publisher":
        publisher.protect([key])
        sweeper.condemn([key])
        assert key in announcements.announced(store, 0)
        return
    sweeper.condemn([key])
    waiting = threading.Thread(target=publisher.protect, args=([key],))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive(), "it waits until the sweep is through with it"
    store.delete(key)
    sweeper.end()
    waiting.join(120)
    assert not blobs.has_blob(store, key.rpartition("/")[2], len(b"old and unnamed"))


def test_a_release_that_begins_while_its_manifest_is_condemned_waits_and_finds_it_gone_or_spared(
    store: Objects,
) -> None:
    Channels(store).move("m", release(store, 1), 0)
    release(store, 2, "failed", age=90)
    wanted = keys.bundle_manifest("f2")

    class Late(Sweep):
        """A release takes the manifest up after the mark was read, before the batch is deleted."""

        def _check_mark(self) -> None:
            Ledger(store).update("m", "m-2", lambda record: {**record, "state": "running"})

    freed = Late(store, POLICY, dry_run=False, clock=later()).run("manifests")
    assert freed.spared == 2
    assert store.get_or_none(wanted) is not None
    wait_until_free(store, [wanted])


def test_fetch_announces_its_manifest_and_all_its_blobs(
    store: Objects, hub: LocalHub, revisions: Any
) -> None:
    for revision in revisions[:2]:  # the second finds some of the first one's blobs there
        manifest, _, _ = fetch(store, Hub(hub.endpoint), "tests/tiny", revision)
    wanted = {manifest.key, *(keys.blob(entry.blob) for entry in manifest.files if entry.size > 2000)}
    assert wanted <= announcements.announced(store, 0)


def test_one_sweep_at_a_time_and_a_paused_one_deletes_nothing(store: Objects) -> None:
    now = [1000.0]
    one, two = (Condemning(store, clock=lambda: now[0], monotonic=lambda: now[0]) for _ in range(2))
    one.condemn(["blobs/a"])
    with pytest.raises(LeaseHeld):
        two.condemn(["blobs/b"])
    now[0] += 200
    with pytest.raises(LeaseLost, match="paused"):
        one.check()
    wait_until_free(store, ["blobs/a"], clock=lambda: now[0])
    two.condemn(["blobs/b"])
    with pytest.raises(LeaseLost, match="took over"):
        one.condemn(["blobs/c"])
