"""Copies a pinned model revision from the Hub to S3 in one pass: nothing on disk, memory bounded, digests
verified."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from trainyard.errors import CorruptArtifact, NotFound, PermanentError
from trainyard.hub import Hub
from trainyard.hub_policy import HubFile, Selection, select
from trainyard.jobs.progress import Progress
from trainyard.jobs.runtime import field, open_store
from trainyard.store import blobs, keys, transfer
from trainyard.store.bundles import missing_blobs
from trainyard.store.documents import timestamp
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest, publish_model, read_model
from trainyard.store.objects import Objects
from trainyard.store.parallel import Stop, run_all

CONCURRENCY = 4
# The Hub keeps files above 10 MB in LFS; what is outside is read whole.
MOST_OUTSIDE_LFS = 64 << 20
log = logging.getLogger(__name__)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Job: {"bucket", "repo", "revision": commit, "endpoint", "concurrency"}; the token comes from HF_TOKEN.

    Result: {"manifest": key, "repo", "revision", "files", "bytes", "sent_files", "sent_bytes", "seconds"}.
    """
    began = time.monotonic()
    repo = keys.check_repo("repo", field(job, "repo", str))
    revision = keys.check_commit("revision", field(job, "revision", str))
    concurrency = max(1, min(16, field(job, "concurrency", int, CONCURRENCY)))
    endpoint = field(job, "endpoint", str, os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    objects = open_store(job)
    manifest, sent_files, sent_bytes = fetch(
        objects, Hub(endpoint, os.environ.get("HF_TOKEN") or None), repo, revision, concurrency
    )
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
    objects: Objects, hub: Hub, repo: str, revision: str, concurrency: int = CONCURRENCY
) -> tuple[ModelManifest, int, int]:
    """Mirror the revision; returns its manifest, and files and bytes that were sent. Mirrored already: sends
    nothing.

    Raises Refused (policy), NotFound, PermanentError, CorruptArtifact, HubUnavailable, StoreUnavailable.
    """
    try:
        manifest = read_model(objects, repo, revision)
        if not missing_blobs(objects, manifest.files):
            log.info("%s@%s is mirrored already", repo, revision)
            return manifest, 0, 0
        log.warning("%s names blobs that are gone: they are fetched again", manifest.key)
    except NotFound:
        pass
    selection = inspect(hub, repo, revision)
    with Progress(f"fetch {repo}", selection.size, len(selection.take)) as progress:
        sender = _Sender(objects, hub, repo, revision, progress)
        # The largest first: a small one at the end does not leave the others idle.
        order = sorted(selection.take, key=lambda file: -file.size)
        entries = run_all([partial(sender.send, file) for file in order], concurrency, sender.stop)
    manifest = ModelManifest(repo, revision, tuple(sorted(entries)), timestamp(time.time()), hub.endpoint)
    return publish_model(objects, manifest)[0], sender.sent_files, sender.sent_bytes


def inspect(hub: Hub, repo: str, revision: str) -> Selection:
    """What to fetch; everything that can be refused is refused here, before the first byte of weights
    moves."""
    files = hub.files(repo, revision)
    selection = select(files)
    select(files, hub.read_json(repo, revision, "config.json"))
    for header in hub.headers(repo, revision, selection.take).values():
        if not header.tensors:
            raise PermanentError(f"{repo}@{revision}: a safetensors file holds no tensors.")
    log.info("%d files to mirror, %d left out", len(selection.take), len(selection.left))
    return selection


class _Sender:
    """Sends one file at a time per thread; counts what was sent."""

    def __init__(self, objects: Objects, hub: Hub, repo: str, revision: str, progress: Progress) -> None:
        self.objects, self.hub, self.repo, self.revision, self.progress = (
            objects,
            hub,
            repo,
            revision,
            progress,
        )
        self.stop = Stop()
        self.sent_files, self.sent_bytes = 0, 0
        self._lock = threading.Lock()

    def send(self, file: HubFile) -> FileEntry:
        send = self._send_small if file.lfs_sha256 is None else self._send_large
        try:
            entry = send(file)
        except CorruptArtifact as error:
            # One flipped bit on the way mends itself; what is wrong at the source stays wrong.
            log.warning("%s Fetching it again.", error)
            entry = send(file)
        self.progress.finish_file()
        return entry

    def _send_large(self, file: HubFile) -> FileEntry:
        digest = keys.check_digest(file.path, file.lfs_sha256)
        if blobs.has_blob(self.objects, digest, file.size):
            self.progress.skip(file.size)
            return FileEntry(file.path, file.size, digest)

        def check(size: int, sha256: str) -> None:
            if (size, sha256) != (file.size, digest):
                raise CorruptArtifact(
                    f"{self.repo}@{self.revision}: {file.path} has SHA-256 {sha256}, the Hub says {digest}. "
                    "Its source is damaged, or something on the way changes it."
                )

        transfer.upload(
            self.objects,
            keys.blob(digest),
            self._watched(self.hub.stream(self.repo, self.revision, file.path, file.size)),
            size=file.size,
            check=check,
            progress=self.progress.add,
        )
        self._count(file.size)
        return FileEntry(file.path, file.size, digest)

    def _send_small(self, file: HubFile) -> FileEntry:
        if file.size > MOST_OUTSIDE_LFS:
            raise PermanentError(
                f"{self.repo}@{self.revision}: {file.path} has {file.size} bytes outside LFS, so no SHA-256 "
                "is known. "
                "Use a repository that was uploaded with LFS."
            )
        stream = self.hub.stream(self.repo, self.revision, file.path, file.size)
        content = b"".join(self._watched(stream))
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if found != file.blob_id:
            raise CorruptArtifact(
                f"{self.repo}@{self.revision}: {file.path} has git id {found}, the Hub says {file.blob_id}. "
                "Its source is damaged, or something on the way changes it."
            )
        digest = hashlib.sha256(content).hexdigest()
        if not blobs.has_blob(self.objects, digest, len(content)):
            self.objects.put(keys.blob(digest), content)
            self._count(len(content))
        self.progress.add(len(content))
        return FileEntry(file.path, len(content), digest)

    def _watched(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.stop.check()
            yield chunk

    def _count(self, size: int) -> None:
        with self._lock:
            self.sent_files += 1
            self.sent_bytes += size
