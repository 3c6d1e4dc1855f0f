"""Manifests are trusted where keys are: on the Airflow side, before a pod is told what to read."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact, NotFound, Refused
from trainyard.hub_policy import HubFile, select
from trainyard.kube.servers import ServerSet
from trainyard.release import Release
from trainyard.sources.base import Source
from trainyard.stages.context import Context
from trainyard.stages.plan import origin_of
from trainyard.store import keys
from trainyard.store.documents import decode, encode
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest
from trainyard.store.objects import Objects
from trainyard.store.signing import Keyring, stripped
from trainyard.store.trees import read_file

_MOST_READ = 64 << 20
# Files that are hashed at once; hashing leaves the interpreter to others.
_READERS = 4


def checked(ctx: Context, key: str) -> str:
    """SHA-256 of the manifest as it is now; its signature is good where keys are configured.

    Raises NotFound, Unsigned, CorruptArtifact.
    """
    body = ctx.objects.get(key).body
    if ctx.keyring is not None:
        ctx.keyring.check(decode(body, key), key)
    return hashlib.sha256(body).hexdigest()


def known_digest(ctx: Context, key: str) -> str | None:
    """What a pod is told of a manifest: its digest where keys are configured, so that it takes no other."""
    return checked(ctx, key) if ctx.keyring is not None and ctx.keyring.public else None


def pin(ctx: Context, job: dict[str, Any]) -> dict[str, Any]:
    """A materialise job whose pods take no other manifests than those that were checked here.

    Without public keys nothing is pinned: a bundle that is damaged in S3 and compiled again may then take the
    old one's place without a new release.
    """
    if ctx.keyring is None or not ctx.keyring.public:
        return job
    pinned = [{**source, "sha256": checked(ctx, source["manifest"])} for source in job["sources"]]
    return {**job, "sources": pinned}


def pinned(ctx: Context, servers: ServerSet) -> ServerSet:
    return replace(servers, materialise_job=pin(ctx, dict(servers.materialise_job)))


def seal_model(ctx: Context, release: Release) -> None:
    """Signs the mirrored model once it is what its source says: fetch pods have no key, and S3's word is not
    enough. Signed already: checks that, and nothing more.

    Raises Unsigned (altered, signed by an unknown key, or the source cannot be asked any more),
    CorruptArtifact (other files than the source's).
    """
    keyring, key = ctx.keyring, release.plan.model_manifest
    if keyring is None:
        return
    document = decode(ctx.objects.get(key).body, key)
    if document.get("signatures") or keyring.private is None:
        keyring.check(document, key)
        return
    model = release.spec.model
    try:
        source = origin_of(ctx, release.spec).source()
        seal(ctx.objects, keyring, source, model.repo, release.plan.revision)
    except (Refused, NotFound, Conflict) as error:
        # A folder of somebody's machine, a prefix that is another by now; or another release was first.
        ctx.log.warning("%s was not signed here: %s", key, error)
        checked(ctx, key)


def seal(objects: Objects, keyring: Keyring, source: Source, repo: str, revision: str) -> None:
    """Compares a mirrored model with its source, file by file, and signs its manifest.

    From the Hub that takes its listing; a bucket's objects and a folder's files are read and hashed here,
    unless S3 itself knows an object's SHA-256. Raises CorruptArtifact, NotFound, Conflict (source or
    manifest changed meanwhile).
    """
    key = keys.model_manifest(repo, revision)
    stored = objects.get(key)
    document = decode(stored.body, key)
    _compare(objects, source, ModelManifest.from_json(document, key), repo, revision)
    objects.replace(key, encode(keyring.seal(stripped(document), key)), stored.etag)


def _compare(objects: Objects, source: Source, manifest: ModelManifest, repo: str, revision: str) -> None:
    if (manifest.repo, manifest.revision) != (repo, revision) or not manifest.files:
        raise CorruptArtifact(f"{manifest.key} is not the manifest of {repo}@{revision}. Delete it.")
    there = {file.path: file for file in select(source.files(revision)).take}
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        same = pool.map(
            lambda entry: _is_same(objects, source, revision, there.get(entry.path), entry), manifest.files
        )
        for entry, agrees in zip(manifest.files, same, strict=True):
            if not agrees:
                raise CorruptArtifact(
                    f"{manifest.key}: {entry.path} is not what {repo}@{revision} has at {source.label}. It "
                    "is not signed: delete that manifest, and find out who wrote it."
                )
    wanted = {path for path in there if path.endswith(".safetensors")}
    if missing := sorted(wanted - {entry.path for entry in manifest.files}):
        raise CorruptArtifact(f"{manifest.key} lacks {', '.join(missing[:3])}. Delete it and release again.")


def _is_same(objects: Objects, source: Source, revision: str, file: HubFile | None, entry: FileEntry) -> bool:
    if file is None or file.size != entry.size:
        return False
    known = source.identify(revision, file)
    if known.lfs_sha256 is not None:
        return known.lfs_sha256 == entry.sha256
    if entry.size > _MOST_READ:
        return False
    content = read_file(objects, entry)
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return git.hexdigest() == known.blob_id
