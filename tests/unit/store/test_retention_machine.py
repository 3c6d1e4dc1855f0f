"""Releases come, are promoted, rolled back and swept in any order: what a sweep keeps is always whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.memory_objects import MemoryObjects
from trainyard.errors import LeaseHeld, NotFound
from trainyard.store import keys, sweep
from trainyard.store.announcements import Announcement
from trainyard.store.channels import Channels
from trainyard.store.documents import encode, timestamp
from trainyard.store.leases import Leases
from trainyard.store.ledger import Ledger
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest
from trainyard.store.objects import ObjectInfo
from trainyard.store.retention import Policy

DAY = 86400.0
MODELS = st.sampled_from(["a", "b"])
NUMBERS = st.integers(0, 5)
POLICY = Policy(good=3, days=5, grace_hours=24)


class DatedObjects(MemoryObjects):
    """Knows when each object was written, by the machine's clock."""

    def __init__(self, machine: Releases) -> None:
        super().__init__()
        self.machine, self.dates = machine, dict[str, float]()

    def put(self, key: str, body: bytes) -> str:
        self.dates[key] = self.machine.now
        return super().put(key, body)

    def head(self, key: str) -> ObjectInfo:
        found = super().head(key)
        return ObjectInfo(key, found.size, found.etag, self.dates[key])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from [self.head(key) for key in sorted(self.content) if key.startswith(prefix)]


class Releases(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.now = 1_800_000_000.0
        self.objects = DatedObjects(self)
        self.ledger, self.channels = Ledger(self.objects), Channels(self.objects, lambda: self.now)
        self.leases = Leases(self.objects, lambda: self.now)
        self.needed: dict[tuple[str, str], tuple[str, ...]] = {}

    @rule(days=st.sampled_from([0.1, 2.0, 8.0, 40.0]))
    def time_passes(self, days: float) -> None:
        self.now += days * DAY

    @rule(model=MODELS, number=NUMBERS, other=NUMBERS)
    def a_release_begins(self, model: str, number: int, other: int) -> None:
        """Two files: one of its own, one that other revisions may share. What is there is not sent again."""
        release = f"{model}-{number}"
        try:
            lease = self.leases.acquire(model, release, DAY)
        except LeaseHeld:
            return
        files = []
        announcement = Announcement(self.objects, release, clock=lambda: self.now)
        for path, body in (("own", f"{model} {number}"), ("shared", f"shared {other % 2}")):
            digest = hashlib.sha256(body.encode()).hexdigest()
            announcement.protect_blobs([digest])
            if self.objects.head_or_none(keys.blob(digest)) is None:
                self.objects.put(keys.blob(digest), body.encode())
            files.append(FileEntry(path, len(body), digest))
        manifest = ModelManifest(f"org/{model}", f"{number:040x}", tuple(files))
        record = {
            "schema": 1, "id": release, "model": model, "state": "running",
            "updated_at": timestamp(self.now), "lease_token": lease.token,
            "plan": {"model_manifest": manifest.key, "bundle_manifest": f"bundles/{release}/manifest.json"},
        }  # fmt: skip
        self._write(model, release, record)
        if self.objects.head_or_none(manifest.key) is None:
            self.objects.put(manifest.key, encode(manifest.to_json()))

    @rule(model=MODELS, end=st.sampled_from(["promoted", "failed", "rolled_back", "dies"]))
    def the_release_ends(self, model: str, end: str) -> None:
        lease = self.leases.last(model)
        if lease is None:
            return
        if end == "promoted":
            self.channels.move(model, lease.holder, lease.token)
        if end != "dies":
            record = self.ledger.read(model, lease.holder).document
            self._write(model, lease.holder, {**record, "state": end, "updated_at": timestamp(self.now)})
            self.leases.release(lease)

    @rule(dry_run=st.booleans())
    def somebody_sweeps(self, dry_run: bool) -> None:
        before = dict(self.objects.content)
        if not any(key.startswith("releases/") for key in before):
            return
        run = sweep.Sweep(
            self.objects, POLICY, dry_run=dry_run, clock=lambda: self.now, monotonic=lambda: self.now
        )
        real = sweep.delete_many
        sweep.delete_many = lambda objects, those: [objects.delete(key) for key in those]  # type: ignore[assignment]
        try:
            freed = [run.run(kind) for kind in ("manifests", "blobs", "staging", "logs", "leftovers")]
        finally:
            sweep.delete_many = real
        gone = set(before) - set(self.objects.content)
        assert len(gone) == (0 if dry_run else sum(each.objects for each in freed))
        assert not any(key.startswith(("releases/", "channels/", "leases/")) for key in gone)

    @invariant()
    def what_must_be_ready_is_whole(self) -> None:
        if not hasattr(self, "objects"):
            return
        for model in ("a", "b"):
            channel, lease = self.channels.read(model), self.leases.last(model)
            moved = dict.fromkeys(move.release for move in reversed(channel.history))
            good = [release for release in moved if self._state(model, release) == "promoted"]
            holder = lease.holder if lease else None
            wanted = {channel.stable, channel.previous, holder, *good[: POLICY.good]}
            for release in wanted - {None}:
                self._materialise(model, str(release))

    def _state(self, model: str, release: str) -> str:
        return str(self.ledger.read(model, release).document["state"])

    def _materialise(self, model: str, release: str) -> None:
        plan = self.ledger.read(model, release).document["plan"]
        manifest = ModelManifest.from_json(
            json.loads(self.objects.get(plan["model_manifest"]).body), "manifest"
        )
        for entry in manifest.files:
            body = self.objects.get(keys.blob(entry.sha256)).body
            assert hashlib.sha256(body).hexdigest() == entry.sha256

    def _write(self, model: str, release: str, record: dict[str, object]) -> None:
        try:
            self.ledger.update(model, release, lambda _: record)
        except NotFound:
            self.ledger.create(model, release, record)


Releases.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestReleases = Releases.TestCase
