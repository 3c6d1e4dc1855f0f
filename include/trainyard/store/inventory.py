"""What lies in the bucket, for people: lists, bytes, and a look whether every byte is still what it was."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from trainyard.errors import PermanentError
from trainyard.store import keys, transfer
from trainyard.store.documents import decode
from trainyard.store.manifests import FileEntry, blobs_of, files_from_json
from trainyard.store.marks import Reader, manifests, read_many
from trainyard.store.objects import ObjectInfo, Objects
from trainyard.store.retention import Policy, kept
from trainyard.store.sweep import list_uploads

PARALLEL = 4


def models(objects: Objects) -> Iterator[dict[str, Any]]:
    for _, document, files in _manifests(objects, "models/"):
        yield {**_some(document, "repo", "revision", "created_at"), **_sizes(files)}


def bundles(objects: Objects) -> Iterator[dict[str, Any]]:
    for _, document, files in _manifests(objects, "bundles/"):
        named = _some(document, "fingerprint", "engine", "target", "created_at")
        yield {**named, "weights": document.get("has_weights"), **_sizes(files)}


def releases(objects: Objects, policy: Policy) -> Iterator[dict[str, Any]]:
    """kept: why retention keeps it; None if housekeeping may take its model and bundle."""
    reader = Reader(objects)
    pointers, facts = reader.pointers(), reader.facts()
    oldest = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - policy.days * 86400))
    why = kept(facts, pointers, policy, oldest)
    for fact in sorted(facts, key=lambda fact: (fact.model, fact.at)):
        yield {
            "model": fact.model,
            "release": fact.release,
            "state": fact.state,
            "updated_at": fact.at,
            "kept": why.get((fact.model, fact.release)),
        }


def channels(objects: Objects) -> Iterator[dict[str, Any]]:
    for info, body in read_many(objects, objects.list("channels/")):
        yield _some(decode(body, info.key), "model", "stable", "previous", "token", "updated_at")


@dataclass
class Usage:
    """kinds: by the first part of the key; models: what each needs, of it what no other needs (own)."""

    kinds: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)


def usage(objects: Objects) -> Usage:
    """Raises CorruptArtifact where a manifest or record cannot be read."""
    kinds: dict[str, list[int]] = {}
    for info in objects.list(""):
        count = kinds.setdefault(info.key.partition("/")[0], [0, 0])
        count[0] += 1
        count[1] += info.size
    uploads = sum(1 for _ in list_uploads(objects))
    rows = [{"kind": kind, "objects": n, "bytes": size} for kind, (n, size) in sorted(kinds.items())]
    if uploads:
        rows.append({"kind": "unfinished uploads", "objects": uploads, "bytes": None})
    return Usage(rows, _by_model(objects))


def _by_model(objects: Objects) -> list[dict[str, Any]]:
    users: dict[str, set[str]] = {}  # manifest -> models whose releases name it
    for fact in Reader(objects).facts():
        for key in fact.manifests:
            users.setdefault(key, set()).add(fact.model)
    sizes: dict[str, int] = {}
    needed: dict[str, set[str]] = {}  # blob -> models
    for prefix in ("models/", "bundles/"):
        for info, _, files in _manifests(objects, prefix):
            for digest, size in blobs_of(files).items():
                sizes[digest] = size
                needed.setdefault(digest, set()).update(users.get(info.key) or {"(no release)"})
    names = sorted({name for those in needed.values() for name in those})
    rows = []
    for name in names:
        mine = [digest for digest, those in needed.items() if name in those]
        own = sum(sizes[digest] for digest in mine if len(needed[digest]) == 1)
        total = sum(sizes[digest] for digest in mine)
        rows.append({"model": name, "bytes": total, "own": own, "shared": total - own})
    rows.append({"model": "all, counted once", "bytes": sum(sizes.values()), "own": None, "shared": None})
    return rows


@dataclass(frozen=True)
class Fault:
    manifest: str
    path: str
    why: str


@dataclass
class Verified:
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "faults": [asdict(fault) for fault in self.faults]}


def verify(objects: Objects, manifest: str | None = None) -> Verified:
    """Reads every blob that the manifest names, or all manifests do, once. Raises NotFound (no such one).

    A manifest that cannot be read is a fault of its own.
    """
    found = Verified()
    told: dict[str, str] = {}  # blob -> why it is bad
    chosen = iter([objects.head(manifest)]) if manifest else manifests(objects)
    with ThreadPoolExecutor(PARALLEL) as pool:
        for info, body in read_many(objects, chosen):
            found.manifests += 1
            try:
                files = files_from_json(decode(body, info.key), info.key)
            except PermanentError as error:
                found.faults.append(Fault(info.key, "manifest.json", str(error)))
                continue
            new = [(digest, size) for digest, size in blobs_of(files).items() if digest not in told]
            for (digest, _), (why, read) in zip(new, pool.map(partial(_look, objects), new), strict=True):
                told[digest] = why
                found.blobs += 1
                found.bytes += read
            bad = {entry.path: told[entry.blob] for entry in files if told[entry.blob]}
            bad.update(_faults_in_packs(objects, [entry for entry in files if entry.path not in bad]))
            found.faults += [Fault(info.key, path, why) for path, why in sorted(bad.items())]
    return found


def _look(objects: Objects, blob: tuple[str, int]) -> tuple[str, int]:
    """Why the blob is bad ("" if it is not), and bytes read."""
    digest, size = blob
    key = keys.blob(digest)
    info = objects.head_or_none(key)
    if info is None:
        return f"{key} is missing", 0
    if info.size != size:
        return f"{key} has {info.size} bytes, not {size}", 0
    seen = hashlib.sha256()
    try:
        for chunk in transfer.read_chunks(objects, key, size):
            seen.update(chunk)
    except PermanentError as error:
        return str(error), 0
    if seen.hexdigest() != digest:
        return f"{key} has SHA-256 {seen.hexdigest()}: damaged", size
    return "", size


def _faults_in_packs(objects: Objects, files: list[FileEntry]) -> dict[str, str]:
    """Files that are not where the manifest says. The packs themselves are well by now, and small."""
    packs: dict[str, list[FileEntry]] = {}
    for entry in files:
        if entry.pack:
            packs.setdefault(entry.blob, []).append(entry)
    found = {}
    for digest, entries in packs.items():
        body = memoryview(objects.get(keys.blob(digest)).body)
        for entry in entries:
            assert entry.pack is not None
            part = body[entry.pack.offset : entry.pack.offset + entry.size]
            if hashlib.sha256(part).hexdigest() != entry.sha256:
                found[entry.path] = (
                    f"the manifest says that it is at {entry.pack.offset} of {keys.blob(digest)}"
                )
    return found


def _manifests(
    objects: Objects, prefix: str
) -> Iterator[tuple[ObjectInfo, dict[str, Any], tuple[FileEntry, ...]]]:
    listed = (info for info in objects.list(prefix) if info.key.endswith("/manifest.json"))
    for info, body in read_many(objects, listed):
        document = decode(body, info.key)
        yield info, document, files_from_json(document, info.key)


def _some(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: document.get(name) for name in names}


def _sizes(files: tuple[FileEntry, ...]) -> dict[str, Any]:
    return {"files": len(files), "bytes": sum(entry.size for entry in files)}
