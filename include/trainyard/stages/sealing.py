"""Manifests are trusted where keys are: on the Airflow side, before a pod is told what to read."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact
from trainyard.hub_policy import select
from trainyard.kube.servers import ServerSet
from trainyard.release import Release
from trainyard.stages.context import Context
from trainyard.store.documents import decode, encode
from trainyard.store.models import ModelManifest
from trainyard.store.signing import stripped
from trainyard.store.trees import read_file

_MOST_READ = 64 << 20


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
    """Signs the mirrored model once it is what the Hub says: fetch pods have no key, and S3's word is not
    enough. Signed already: checks that, and nothing more.

    Raises Unsigned (altered, or signed by an unknown key), CorruptArtifact (other files than the Hub's).
    """
    keyring, key = ctx.keyring, release.plan.model_manifest
    if keyring is None:
        return
    stored = ctx.objects.get(key)
    document = decode(stored.body, key)
    if document.get("signatures") or keyring.private is None:
        keyring.check(document, key)
        return
    _compare(ctx, release, ModelManifest.from_json(document, key))
    try:
        ctx.objects.replace(key, encode(keyring.seal(stripped(document), key)), stored.etag)
    except Conflict:
        checked(ctx, key)  # another release of the same revision was first


def _compare(ctx: Context, release: Release, manifest: ModelManifest) -> None:
    repo, revision = release.spec.model.repo, release.plan.revision
    there = {file.path: file for file in select(ctx.hub.files(repo, revision)).take}
    if (manifest.repo, manifest.revision) != (repo, revision) or not manifest.files:
        raise CorruptArtifact(f"{manifest.key} is not the manifest of {repo}@{revision}. Delete it.")
    for entry in manifest.files:
        file = there.get(entry.path)
        if file is not None and file.lfs_sha256 is not None:
            same = (file.lfs_sha256, file.size) == (entry.sha256, entry.size)
        elif file is not None and entry.size <= _MOST_READ and file.size == entry.size:
            content = read_file(ctx.objects, entry)
            git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
            same = git.hexdigest() == file.blob_id
        else:
            same = False
        if not same:
            raise CorruptArtifact(
                f"{manifest.key}: {entry.path} is not what {repo}@{revision} has on the Hub. It is not "
                "signed: delete that manifest, and find out who wrote it."
            )
    wanted = {path for path in there if path.endswith(".safetensors")}
    if missing := sorted(wanted - {entry.path for entry in manifest.files}):
        raise CorruptArtifact(f"{manifest.key} lacks {', '.join(missing[:3])}. Delete it and release again.")
