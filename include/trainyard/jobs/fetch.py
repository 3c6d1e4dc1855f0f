"""Copies a pinned model revision to S3 in one pass: nothing on disk, memory bounded, digests verified."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from trainyard.errors import CorruptArtifact, NotFound, PermanentError, TrainyardError
from trainyard.hub import Hub
from trainyard.hub_policy import HubFile, Selection, select
from trainyard.jobs.mirror import STREAMS, Mirror
from trainyard.jobs.progress import Progress
from trainyard.jobs.runtime import field, open_store
from trainyard.sources import open_source, parse
from trainyard.sources.base import Source
from trainyard.store import keys, uploads
from trainyard.store.announcements import Announcement
from trainyard.store.bundles import missing_blobs
from trainyard.store.documents import SCHEMA, encode, timestamp
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest, publish_model, read_model
from trainyard.store.objects import Objects
from trainyard.store.parallel import Stop, run_all

MOST_STREAMS = 32
# The Hub keeps files above 10 MB in LFS; what is outside is read whole.
MOST_OUTSIDE_LFS = 64 << 20
log = logging.getLogger(__name__)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Job: {"bucket", "repo", "revision": commit, "endpoint", "concurrency": requests at once, "source",
    "release"}; the token comes from HF_TOKEN.

    source: `hf://`, `s3://` or `file://`; without it the Hub's `repo`. release: whose progress is told in S3.
    Result: {"manifest": key, "repo", "revision", "files", "bytes", "sent_files", "sent_bytes", "seconds"}.
    """
    began = time.monotonic()
    repo = keys.check_repo("repo", field(job, "repo", str))
    revision = keys.check_commit("revision", field(job, "revision", str))
    streams = max(1, min(MOST_STREAMS, field(job, "concurrency", int, STREAMS)))
    endpoint = field(job, "endpoint", str, os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    address = parse(field(job, "source", str, f"hf://{repo}@{revision}"))
    release = field(job, "release", str, None)
    objects = open_store(job)
    source = open_source(address, objects, Hub(endpoint, os.environ.get("HF_TOKEN") or None))
    report = _reporter(objects, keys.progress(release)) if release else None
    manifest, sent_files, sent_bytes = fetch_from(objects, source, repo, revision, streams, report)
    return {
        "manifest": manifest.key,
        "repo": repo,
        "revision": revision,
        "files": len(manifest.files),
        "bytes": manifest.size,
        "sent_files": sent_files,
        "sent_bytes": sent_bytes,
        "seconds": round(time.monotonic() - began, 3),
    }


def fetch(
    objects: Objects, hub: Hub, repo: str, revision: str, streams: int = STREAMS
) -> tuple[ModelManifest, int, int]:
    """`fetch_from` the Hub's repository of that name."""
    source = open_source(parse(f"hf://{repo}@{revision}"), objects, hub)
    return fetch_from(objects, source, repo, revision, streams)


def fetch_from(
    objects: Objects,
    source: Source,
    repo: str,
    revision: str,
    streams: int = STREAMS,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[ModelManifest, int, int]:
    """Mirror the revision as `repo`; returns its manifest, and files and bytes that were sent. Mirrored
    already: sends nothing.

    Raises Refused (policy), NotFound, PermanentError, CorruptArtifact, HubUnavailable, StoreUnavailable. What
    was sent until then is gone on with by the next try.
    """
    # No sweep takes away what this fetch finds in S3 and does not send again.
    announcement = Announcement(objects, f"fetch {repo}@{revision}")
    announcement.protect([keys.model_manifest(repo, revision)])
    try:
        manifest = read_model(objects, repo, revision)
        if not missing_blobs(objects, manifest.files):
            log.info("%s@%s is mirrored already", repo, revision)
            return manifest, 0, 0
        log.warning("%s names blobs that are gone: they are fetched again", manifest.key)
    except NotFound:
        pass
    selection = inspect(source, repo, revision)
    _clean_up(objects)
    with Progress(f"fetch {repo}", selection.size, len(selection.take), report=report) as progress:
        small = _Small(objects, source, repo, revision, progress, announcement)
        mirror = Mirror(objects, source, revision, progress, streams=streams)
        known = run_all(
            [partial(small.identify, file) for file in selection.take], min(streams, 8), small.stop
        )
        announcement.protect_blobs(entry.blob for entry in known)
        mirror.send([_as_file(entry) for entry in known if entry.path not in small.sent])
    manifest = ModelManifest(repo, revision, tuple(sorted(known)), timestamp(time.time()), source.label)
    published = publish_model(objects, manifest)[0]
    return published, mirror.sent_files + small.sent_files, mirror.sent_bytes + small.sent_bytes


def inspect(source: Source, repo: str, revision: str) -> Selection:
    """What to fetch; everything that can be refused is refused here, before the first byte of weights
    moves."""
    files = source.files(revision)
    selection = select(files)
    select(files, source.read_json(revision, "config.json"))
    for header in source.headers(revision, selection.take).values():
        if not header.tensors:
            raise PermanentError(f"{repo}@{revision}: a safetensors file holds no tensors.")
    log.info("%d files to mirror, %d left out", len(selection.take), len(selection.left))
    return selection


class _Small:
    """Files whose SHA-256 nobody told: found out first. Those outside LFS are in memory by then, and sent."""

    def __init__(
        self,
        objects: Objects,
        source: Source,
        repo: str,
        revision: str,
        progress: Progress,
        announcement: Announcement,
    ) -> None:
        self.objects, self.source, self.repo, self.revision = objects, source, repo, revision
        self.progress, self.stop, self.announcement = progress, Stop(), announcement
        self.sent: set[str] = set()
        self.sent_files, self.sent_bytes = 0, 0
        self._lock = threading.Lock()

    def identify(self, file: HubFile) -> FileEntry:
        self.stop.check()
        found = self.source.identify(self.revision, file)
        if found.lfs_sha256 is not None:
            return FileEntry(found.path, found.size, keys.check_digest(found.path, found.lfs_sha256))
        try:
            return self._send(file)
        except CorruptArtifact as error:
            # One flipped bit on the way mends itself; what is wrong at the source stays wrong.
            log.warning("%s Fetching it again.", error)
            return self._send(file)

    def _send(self, file: HubFile) -> FileEntry:
        if file.size > MOST_OUTSIDE_LFS:
            raise PermanentError(
                f"{self.repo}@{self.revision}: {file.path} has {file.size} bytes outside LFS, so no SHA-256 "
                "is known. Use a repository that was uploaded with LFS."
            )
        content = b"".join(self.source.stream(self.revision, file))
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if found != file.blob_id:
            raise CorruptArtifact(
                f"{self.repo}@{self.revision}: {file.path} has git id {found}, the Hub says {file.blob_id}. "
                "Its source is damaged, or something on the way changes it."
            )
        digest = hashlib.sha256(content).hexdigest()
        is_new = not self.announcement.has_blob(digest, len(content))
        if is_new:
            self.objects.put(keys.blob(digest), content)
        with self._lock:
            self.sent.add(file.path)
            self.sent_files += is_new
            self.sent_bytes += len(content) if is_new else 0
        self.progress.add(len(content))
        self.progress.finish_file()
        return FileEntry(file.path, len(content), digest)


def _as_file(entry: FileEntry) -> HubFile:
    return HubFile(entry.path, entry.size, entry.sha256, "")


def _clean_up(objects: Objects) -> None:
    """Uploads that nobody will finish; a store that does not let us is no reason not to fetch."""
    try:
        if count := uploads.abort_stale(objects):
            log.info("threw away %d uploads of more than a day ago", count)
    except TrainyardError as error:
        log.warning("cannot look for old uploads: %s", error)


def _reporter(objects: Objects, key: str) -> Callable[[dict[str, Any]], None]:
    """Nobody else writes this document: no compare-and-swap."""

    def report(figures: dict[str, Any]) -> None:
        objects.put(key, encode({"schema": SCHEMA, **figures, "at": timestamp(time.time())}))

    return report
