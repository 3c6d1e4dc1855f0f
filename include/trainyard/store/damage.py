"""Damaged artifacts in S3: set aside, so that they can be written anew, and their bundle marked.

A mark names the very manifest that it condemns (by the SHA-256 of its bytes), so it is void once another one
stands there: nobody has to delete it in time.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact, NotFound, TrainyardError
from trainyard.store import keys, transfer
from trainyard.store.documents import SCHEMA, decode, encode, take, timestamp
from trainyard.store.objects import Objects

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Damage:
    """fingerprint: of the bundle; manifest: SHA-256 of its manifest's bytes; path: the file; reason: what was
    found; at: RFC 3339."""

    fingerprint: str
    manifest: str
    path: str
    reason: str
    at: str

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "damage",
            "fingerprint": self.fingerprint,
            "manifest": self.manifest,
            "path": self.path,
            "reason": self.reason,
            "at": self.at,
        }

    @staticmethod
    def from_json(document: dict[str, Any], where: str) -> Damage:
        names = ("fingerprint", "manifest", "path", "reason", "at")
        return Damage(*(take(document, name, str, where) for name in names))


def condemn(
    objects: Objects, fingerprint: str, path: str, reason: str, *, clock: Callable[[], float] = time.time
) -> bool:
    """Mark the bundle that stands: the next release of it compiles. False: there is none.

    Raises PermanentError (not allowed to write there), StoreUnavailable.
    """
    standing = objects.get_or_none(keys.bundle_manifest(fingerprint))
    if standing is None:
        return False
    damage = Damage(fingerprint, digest_of(standing.body), path, reason[:2000], timestamp(clock()))
    objects.put(keys.bundle_damage(fingerprint), encode(damage.to_json()))
    return True


def damage_of(objects: Objects, fingerprint: str, manifest: bytes) -> Damage | None:
    """The mark on exactly this manifest (its bytes), if there is one. A mark that cannot be read counts."""
    key = keys.bundle_damage(fingerprint)
    stored = objects.get_or_none(key)
    if stored is None:
        return None
    try:
        damage = Damage.from_json(decode(stored.body, key), key)
    except CorruptArtifact as error:
        return Damage(fingerprint, digest_of(manifest), "", f"its mark cannot be read: {error}", "")
    return damage if damage.manifest == digest_of(manifest) else None


def quarantine_blob(
    objects: Objects, digest: str, size: int, reason: str, *, clock: Callable[[], float] = time.time
) -> bool:
    """Move a damaged blob aside, so that the next publisher or fetch writes it anew. False: it is sound, or
    gone; what arrived wrong was damaged on its way.

    It is read once more first: one bad line must not cost everybody a good blob. Raises PermanentError (not
    allowed), StoreUnavailable.
    """
    key = keys.blob(digest)
    try:
        found = objects.head(key)
        seen = hashlib.sha256()
        for chunk in transfer.read_chunks(objects, key, found.size, etag=found.etag):
            seen.update(chunk)
    except (NotFound, Conflict):  # gone, or written anew meanwhile
        return False
    except CorruptArtifact as error:  # shorter than S3 says: it is S3's copy that is broken
        seen, reason = hashlib.sha256(), f"{reason} {error}"
    if (found.size, seen.hexdigest()) == (size, digest):
        return False
    aside = keys.quarantined_blob(digest, found.etag)
    told = {
        "schema": SCHEMA,
        "kind": "quarantine",
        "key": key,
        "size": size,
        "found_size": found.size,
        "found_sha256": seen.hexdigest(),
        "reason": reason[:2000],
        "at": timestamp(clock()),
    }
    objects.put(f"{aside}.json", encode(told))
    try:
        objects.copy(key, aside, found.etag)
        objects.delete_version(key, found.etag)
    except (NotFound, Conflict):
        return False
    log.warning("s3://%s/%s was damaged: it is set aside as %s", objects.bucket, key, aside)
    return True


def handle(objects: Objects, manifest: dict[str, Any], path: str, blob: str, size: int, reason: str) -> str:
    """Do what this process may do about a damaged file of a manifest's document; returns it in words.

    Pods that serve need not be allowed to write: whoever reads their error marks the bundle then.
    """
    done = []
    try:
        if quarantine_blob(objects, blob, size, reason):
            done.append("The blob is set aside under quarantine/.")
    except TrainyardError as error:
        log.warning("cannot set the blob %s aside: %s", blob, error)
    if manifest.get("kind") != "bundle":
        done.append("Release again: the model's file is fetched anew if its blob is gone.")
        return " ".join(done)
    try:
        condemn(objects, str(manifest["fingerprint"]), path, reason)
        done.append("The bundle is marked: release again, and it is compiled anew.")
    except TrainyardError as error:
        log.warning("cannot mark the bundle: %s", error)
        done.append(
            f"Mark it by `trainyard store verify`, or delete its manifest, and release again ({error})."
        )
    return " ".join(done)


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
