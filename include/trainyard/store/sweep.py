"""Deletes what nothing names and nobody is writing. See announcements for why a publisher loses nothing.

A dry run looks in the same way and deletes nothing. Listings are read page by page, deletions go out by the
thousand; memory holds the digests that are named, 100 bytes each, and one page.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from trainyard.errors import CorruptArtifact, LeaseLost, PermanentError, StoreUnavailable
from trainyard.store.announcements import PREFIX as PUBLISHING
from trainyard.store.announcements import Condemning, announced
from trainyard.store.compile_cache import PREFIX as CACHE
from trainyard.store.compile_cache import CompileCache
from trainyard.store.marks import Reader, log_keys, manifests, named_blobs, read_roots
from trainyard.store.objects import ObjectInfo, Objects
from trainyard.store.retention import Policy
from trainyard.store.s3errors import translate

BATCH = 1000
# Manifests before blobs: what they named is free in the same run.
KINDS = ("manifests", "blobs", "staging", "logs", "cache", "leftovers", "uploads")
# Written on the way, of no use afterwards; runs/ only helps links of old runs.
_LEFTOVERS = ("uploads/", "progress/", "runs/", "quarantine/")
_KEPT_LONGER = ("runs/", "quarantine/")
_DAY = 86400.0


@dataclass
class Freed:
    """kind; what went (or would go), by count and bytes; kept: what was looked at and stays; spared: what a
    publisher announced at the last moment; examples: the first keys."""

    kind: str
    objects: int = 0
    bytes: int = 0
    kept: int = 0
    spared: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, info: ObjectInfo) -> None:
        self.objects += 1
        self.bytes += info.size
        if len(self.examples) < 10:
            self.examples.append(info.key)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Sweep:
    """One run. now: Unix seconds; compared with S3's LastModified, so a clock that is off by minutes only
    shifts the grace period by as much."""

    def __init__(
        self,
        objects: Objects,
        policy: Policy,
        *,
        dry_run: bool,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        cache_prefix: str = CACHE,
    ) -> None:
        self.objects, self.policy, self.dry_run, self.clock = objects, policy, dry_run, clock
        self.reader = Reader(objects)
        self.cache_prefix = cache_prefix
        self.monotonic = monotonic
        self._condemning = Condemning(objects, clock=clock, monotonic=monotonic)
        self._announcements: dict[str, frozenset[str]] = {}

    def run(self, kind: str) -> Freed:
        """Sweeps one of KINDS. Raises LeaseHeld, LeaseLost, CorruptArtifact, PermanentError."""
        freed = Freed(kind)
        self.began = self.monotonic()
        self.now = self.clock()
        self.roots = read_roots(self.reader, self.policy, self.now)
        if kind in ("manifests", "blobs") and not self.roots.records:
            self._refuse_without_releases()
        try:
            getattr(self, f"_{kind}")(freed)
        finally:
            self._condemning.end()
        return freed

    def _refuse_without_releases(self) -> None:
        if next(iter(manifests(self.objects)), None) is not None:
            raise PermanentError(
                f"s3://{self.objects.bucket} holds models or bundles, and no record of a release: a ledger "
                "that was lost looks like that, too. Delete by hand what you do not want."
            )

    def _manifests(self, freed: Freed) -> None:
        """Also what lies beside a manifest (marks of damage), once the manifest is gone."""
        oldest = self.now - max(self.policy.days * _DAY, self.policy.grace_seconds)

        def unnamed() -> Iterator[ObjectInfo]:
            for prefix in ("models/", "bundles/"):
                for info in self.objects.list(prefix):
                    folder = info.key.rpartition("/")[0]
                    if f"{folder}/manifest.json" in self.roots.manifests or info.modified > oldest:
                        freed.kept += 1
                    else:
                        yield info

        def spare() -> set[str]:
            """Releases that began since the mark was read: they are in the ledger before they look."""
            roots = read_roots(self.reader, self.policy, self.now)
            return set(roots.manifests)

        self._delete(freed, unnamed(), lambda info, spared: _manifest_of(info.key) in spared, spare)

    def _blobs(self, freed: Freed) -> None:
        staying = manifests(self.objects)
        if self.dry_run:
            # As if the manifests' own sweep had been done.
            oldest = self.now - max(self.policy.days * _DAY, self.policy.grace_seconds)
            staying = (info for info in staying if info.key in self.roots.manifests or info.modified > oldest)
        named = named_blobs(self.objects, staying)
        limit = self.now - self.policy.grace_seconds

        def unnamed() -> Iterator[ObjectInfo]:
            for info in self.objects.list("blobs/"):
                name = info.key.rpartition("/")[2]
                try:
                    digest = bytes.fromhex(name)
                except ValueError:
                    digest = b""
                if digest in named or info.modified > limit:
                    freed.kept += 1
                else:
                    yield info

        self._delete(freed, unnamed(), lambda info, spared: info.key in spared)

    def _staging(self, freed: Freed) -> None:
        def unnamed() -> Iterator[ObjectInfo]:
            limit = self.now - self.policy.grace_seconds
            for info in self.objects.list("staging/"):
                attempt = info.key.split("/")[2] if info.key.count("/") > 2 else ""
                if attempt in self.roots.running or info.modified > limit:
                    freed.kept += 1
                else:
                    yield info

        self._delete(freed, unnamed(), lambda info, spared: info.key in spared)

    def _logs(self, freed: Freed) -> None:
        named = log_keys(self.objects, manifests(self.objects))
        limit = self.now - self.policy.log_days * _DAY

        def unnamed() -> Iterator[ObjectInfo]:
            for info in chain(self.objects.list("logs/"), self.objects.list("measurements/")):
                release = tuple(info.key.split("/")[1:3])
                if release in self.roots.releases or info.key in named or info.modified > limit:
                    freed.kept += 1
                else:
                    yield info

        self._delete(freed, unnamed())

    def _cache(self, freed: Freed) -> None:
        """Indexes that no kept release and no compile of late used; then contents that no index names.

        A compile that relied on one of those finds it gone, drops the entry and compiles that graph.
        """
        limit = self.now - self.policy.cache_days * _DAY
        grace = self.now - self.policy.grace_seconds
        newest: dict[str, float] = {}
        for info in self.objects.list(self.cache_prefix):
            key = info.key.removeprefix(self.cache_prefix).partition("/")[0]
            if key != "blobs":
                newest[key] = max(newest.get(key, 0.0), info.modified)
        oldest = min(limit, grace)
        going = {key for key, at in newest.items() if key not in self.roots.configurations and at <= oldest}
        named: set[str] = set()
        for key in newest.keys() - going:
            try:
                index = CompileCache(self.objects, key, self.cache_prefix).read()
            except CorruptArtifact:
                continue  # the next compile replaces it by an empty one
            named.update(file.sha256 for entry in index.entries for file in entry.files)

        def unnamed() -> Iterator[ObjectInfo]:
            for info in self.objects.list(self.cache_prefix):
                first, _, rest = info.key.removeprefix(self.cache_prefix).partition("/")
                blob = first == "blobs"
                stays = rest.rpartition("/")[2] in named if blob else first not in going
                if stays or info.modified > grace:
                    freed.kept += 1
                else:
                    yield info

        self._delete(freed, unnamed())

    def _leftovers(self, freed: Freed) -> None:
        """Progress and states of transfers, old announcements, and what was set aside as damaged."""
        grace = self.now - self.policy.grace_seconds
        limit = self.now - self.policy.log_days * _DAY

        def unnamed() -> Iterator[ObjectInfo]:
            for prefix in (*_LEFTOVERS, PUBLISHING):
                for info in self.objects.list(prefix):
                    running = any(release in info.key for release in self.roots.running)
                    if info.modified > (limit if prefix in _KEPT_LONGER else grace) or running:
                        freed.kept += 1
                    else:
                        yield info

        self._delete(freed, unnamed())

    def _uploads(self, freed: Freed) -> None:
        """Multipart uploads that nobody completed. Their bytes are not listed: S3 tells them part by part."""
        limit = self.now - self.policy.grace_seconds
        spared = announced(self.objects, limit, self._announcements)
        client, bucket = self.objects.client, self.objects.bucket
        for upload in list_uploads(self.objects):
            if upload.modified > limit or upload.key in spared:
                freed.kept += 1
                continue
            parts = client.get_paginator("list_parts").paginate(
                Bucket=bucket, Key=upload.key, UploadId=upload.etag
            )
            size = sum(part["Size"] for page in parts for part in page.get("Parts", []))
            if not self.dry_run:
                with translate("abort the upload of", f"s3://{bucket}/{upload.key}"):
                    client.abort_multipart_upload(Bucket=bucket, Key=upload.key, UploadId=upload.etag)
            freed.add(ObjectInfo(upload.key, size, upload.etag, upload.modified))

    def _delete(
        self,
        freed: Freed,
        those: Iterable[ObjectInfo],
        is_spared: Callable[[ObjectInfo, set[str]], bool] | None = None,
        more: Callable[[], set[str]] | None = None,
    ) -> None:
        """Batch by batch. With `is_spared`: condemned first, then spared if somebody announced it.

        `more`: further keys that are relied on, read after the batch was condemned.
        """
        for batch in _batches(those):
            if self.dry_run:
                for info in batch:
                    freed.add(info)
                continue
            if is_spared is not None:
                self._condemning.condemn(info.key for info in batch)
                self._check_mark()
                spared = announced(self.objects, self.now - self.policy.grace_seconds, self._announcements)
                if more is not None:
                    spared |= more()
                going = [info for info in batch if not is_spared(info, spared)]
                freed.spared += len(batch) - len(going)
                self._condemning.check()
            else:
                going = batch
            delete_many(self.objects, [info.key for info in going])
            for info in going:
                freed.add(info)

    def _check_mark(self) -> None:
        """An announcement may be removed once it is older than the grace period; the mark must be younger."""
        age = self.monotonic() - self.began
        if age > self.policy.grace_seconds / 2:
            raise LeaseLost(f"The mark of this sweep is {age:.0f} s old by now. Run housekeeping again.")


def list_uploads(objects: Objects) -> Iterator[ObjectInfo]:
    """Unfinished multipart uploads: key, no size, upload id as `etag`, when it was begun."""
    marker: dict[str, str] = {}
    while True:
        with translate("list the uploads of", f"s3://{objects.bucket}"):
            page = objects.client.list_multipart_uploads(Bucket=objects.bucket, **marker)
        for item in page.get("Uploads", []):
            yield ObjectInfo(item["Key"], 0, item["UploadId"], item["Initiated"].timestamp())
        if not page.get("IsTruncated"):
            return
        marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def delete_many(objects: Objects, keys: list[str]) -> None:
    """One request for up to 1,000 keys. Raises StoreUnavailable naming the first that was not deleted."""
    if not keys:
        return
    with translate("delete", f"s3://{objects.bucket}"):
        reply = objects.client.delete_objects(
            Bucket=objects.bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
        )
    for error in reply.get("Errors", []):
        raise StoreUnavailable(
            f"s3://{objects.bucket}/{error.get('Key')} was not deleted: {error.get('Code')} "
            f"{error.get('Message')}"
        )


def _manifest_of(key: str) -> str:
    return f"{key.rpartition('/')[0]}/manifest.json"


def _batches(those: Iterable[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    batch: list[ObjectInfo] = []
    for info in those:
        batch.append(info)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
