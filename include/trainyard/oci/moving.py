"""Push from S3 to a registry and pull back: streams only, no disk, what is there already is not sent."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from trainyard.errors import Conflict, CorruptArtifact, Refused
from trainyard.hub_policy import HubFile, config_problems, select
from trainyard.oci.artifacts import (
    CONFIG_CAP,
    Artifact,
    Blob,
    check_fits,
    check_layers,
    config_of,
    read_artifact,
    to_oci,
)
from trainyard.oci.references import Reference, Subject
from trainyard.oci.registry import Registry
from trainyard.store import blobs, keys, transfer
from trainyard.store.announcements import Announcement
from trainyard.store.bundles import read_bundle
from trainyard.store.documents import decode
from trainyard.store.models import ModelManifest, read_model
from trainyard.store.objects import AlreadyExists, Objects
from trainyard.store.parallel import Stop, run_all
from trainyard.store.signing import Keyring

PARALLEL = 4
MAX_CONFIG_JSON = 16 << 20

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Moved:
    """subject: `model:...` or `bundle:...`; digest of the OCI manifest; blobs and bytes that were sent;
    present: blobs that were there already; created: whether a pull published it."""

    subject: str
    digest: str
    sent: int
    bytes: int
    present: int
    created: bool = True


def push(
    objects: Objects,
    subject: Subject,
    reference: Reference,
    *,
    registry: Registry | None = None,
    keyring: Keyring | None = None,
    parallel: int = PARALLEL,
    progress: Progress | None = None,
) -> Moved:
    """Make `reference` name the model or bundle; the tag is written last.

    Raises NotFound, Unsigned (keyring trusts keys, and none of them signed it), Refused (beyond ECR's
    limits), CorruptArtifact (a blob in S3 is damaged: named), Conflict (an immutable tag), PermanentError,
    RegistryUnavailable, StoreUnavailable.
    """
    # Read by the store's own readers first: they check what a manifest has to be.
    if subject.kind == "model":
        read_model(objects, subject.repo, subject.revision)
    else:
        read_bundle(objects, subject.fingerprint)
    key = subject.manifest_key
    artifact = read_artifact(objects.get(key).body, key)
    _check_signed(keyring, artifact.body, key)
    check_fits(artifact, reference)
    there = registry or Registry(reference)
    counter = _Counter(progress)
    stop = Stop()
    with ThreadPoolExecutor(max_workers=parallel * 2) as ahead:
        run_all(
            [partial(_push_blob, objects, there, blob, ahead, counter, stop) for blob in artifact.blobs],
            parallel,
            stop,
        )
    if not there.has_blob(artifact.config_digest):
        there.put_blob(artifact.config_digest, len(artifact.body), lambda: iter((artifact.body,)))
    digest = there.put_manifest(to_oci(artifact))
    return Moved(str(subject), digest, counter.sent, counter.bytes, counter.present)


def pull(
    objects: Objects,
    reference: Reference,
    *,
    registry: Registry | None = None,
    keyring: Keyring | None = None,
    parallel: int = PARALLEL,
    progress: Progress | None = None,
) -> Moved:
    """Bring what `reference` names into S3: blobs by digest, verified while they arrive, the manifest last.

    Raises NotFound, Unsigned (keyring trusts keys, and none of them signed it; nothing was moved then),
    Refused (a model with pickles or code), CorruptArtifact, Conflict (another manifest
    stands there), PermanentError, RegistryUnavailable, StoreUnavailable.
    """
    there = registry or Registry(reference)
    manifest = there.manifest()
    where = str(reference)
    config, size = config_of(manifest, where)
    artifact = read_artifact(there.read_blob(config, size, CONFIG_CAP), where)
    subject = subject_of(artifact)
    # Its bytes come to lie under this key, for which they were signed.
    _check_signed(keyring, artifact.body, subject.manifest_key)
    check_layers(manifest, artifact, where)
    _check_names(artifact)
    # No sweep takes away what this pull finds in S3 and does not bring again.
    announcement = Announcement(objects, f"pull {reference}")
    announcement.protect([subject.manifest_key, *(keys.blob(blob.sha256) for blob in artifact.blobs)])
    counter = _Counter(progress)
    stop = Stop()
    run_all(
        [partial(_pull_blob, objects, there, blob, counter, stop) for blob in artifact.blobs], parallel, stop
    )
    if any(entry.size == 0 and entry.pack is None for entry in artifact.document.files):
        blobs.put_blob(objects, b"")  # no layer: some registries refuse empty ones
    _check_config(objects, artifact)
    created = _publish(objects, artifact, subject, keyring)
    return Moved(str(subject), f"sha256:{config}", counter.sent, counter.bytes, counter.present, created)


def subject_of(artifact: Artifact) -> Subject:
    """Whose manifest it is, with its ids checked. Raises Refused."""
    document = artifact.document
    if isinstance(document, ModelManifest):
        repo, revision = (
            keys.check_repo("repo", document.repo),
            keys.check_commit("revision", document.revision),
        )
        return Subject("model", repo=repo, revision=revision)
    return Subject("bundle", fingerprint=keys.check_id("fingerprint", document.fingerprint))


class _Counter:
    def __init__(self, progress: Progress | None) -> None:
        self.sent = self.bytes = self.present = 0
        self.progress, self._lock = progress, threading.Lock()

    def count(self, size: int, sent: bool) -> None:
        with self._lock:
            if sent:
                self.sent, self.bytes = self.sent + 1, self.bytes + size
            else:
                self.present += 1
        if not sent:
            self.moved(size)

    def moved(self, size: int) -> None:
        if self.progress:
            self.progress(size)


def _push_blob(
    objects: Objects, registry: Registry, blob: Blob, ahead: ThreadPoolExecutor, counter: _Counter, stop: Stop
) -> None:
    stop.check()
    if registry.has_blob(blob.sha256):
        counter.count(blob.size, sent=False)
        return
    name, key = blob.path or "a pack", keys.blob(blob.sha256)
    found = objects.head_or_none(key)
    if found is None or found.size != blob.size:
        raise CorruptArtifact(f"{name}: its blob s3://{objects.bucket}/{key} is gone or of another size.")

    def content() -> Iterator[bytes]:
        digest = hashlib.sha256()
        left = blob.size
        for chunk in transfer.read_chunks(objects, key, blob.size, etag=found.etag, pool=ahead):
            stop.check()
            digest.update(chunk)
            left -= len(chunk)
            # Before the last piece leaves: the registry would say "digest invalid", not which file.
            if left == 0 and digest.hexdigest() != blob.sha256:
                raise CorruptArtifact(
                    f"{name} is damaged in S3: s3://{objects.bucket}/{key} has SHA-256 {digest.hexdigest()}. "
                    "Delete that blob and the manifest, then release again."
                )
            counter.moved(len(chunk))
            yield chunk

    registry.put_blob(blob.sha256, blob.size, content)
    counter.count(blob.size, sent=True)


def _pull_blob(objects: Objects, registry: Registry, blob: Blob, counter: _Counter, stop: Stop) -> None:
    stop.check()
    if blobs.has_blob(objects, blob.sha256, blob.size):
        counter.count(blob.size, sent=False)
        return

    def check(size: int, sha256: str) -> None:
        if (size, sha256) != (blob.size, blob.sha256):
            raise CorruptArtifact(
                f"{blob.path or 'a pack'}: the registry sent {size} bytes with SHA-256 {sha256}, "
                f"not {blob.size} with {blob.sha256}."
            )

    def chunks() -> Iterator[bytes]:
        for chunk in registry.stream_blob(blob.sha256, blob.size):
            stop.check()
            yield chunk

    for attempt in (1, 2):
        try:
            transfer.upload(
                objects,
                keys.blob(blob.sha256),
                chunks(),
                size=blob.size,
                check=check,
                progress=counter.moved,
            )
            break
        except CorruptArtifact:
            # Once may have happened on the way; twice is how it lies there.
            if attempt == 2:
                raise
    counter.count(blob.size, sent=True)


def _check_names(artifact: Artifact) -> None:
    """A model from a registry obeys the rules of one from the Hub. Raises Refused."""
    if isinstance(artifact.document, ModelManifest):
        # In LFS all of them, for the policy: it is pointers that are not, and these have their digest.
        select(HubFile(entry.path, entry.size, entry.sha256, "") for entry in artifact.document.files)


def _check_config(objects: Objects, artifact: Artifact) -> None:
    """Code that a model's config.json would have run. Raises Refused, CorruptArtifact."""
    for entry in artifact.document.files if artifact.kind == "model" else ():
        if entry.path != "config.json" or entry.size > MAX_CONFIG_JSON:
            continue
        try:
            document = json.loads(blobs.read_blob(objects, entry.sha256))
        except (ValueError, RecursionError) as error:
            raise CorruptArtifact(f"config.json is no JSON ({error}).") from error
        problems = config_problems(document) if isinstance(document, dict) else []
        if problems:
            raise Refused(problems)


def _check_signed(keyring: Keyring | None, body: bytes, key: str) -> None:
    if keyring is not None:
        keyring.check(decode(body, key), key)


def _publish(objects: Objects, artifact: Artifact, subject: Subject, keyring: Keyring | None) -> bool:
    """Write the manifest as it came; True if it was not there. Raises Conflict, Unsigned (what stands)."""
    key = subject.manifest_key
    try:
        objects.put_new(key, artifact.body)
        return True
    except AlreadyExists:
        standing = read_artifact(objects.get(key).body, key)
        _check_signed(keyring, standing.body, key)
    if standing.document.files != artifact.document.files:
        raise Conflict(
            f"{key} stands already and names other files than the registry's. Keep it, or delete it and pull "
            "again."
        )
    return False
