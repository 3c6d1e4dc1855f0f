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

from trainyard.errors import CorruptArtifact, NotFound, TrainyardError
from trainyard.store import keys, transfer
from trainyard.store.documents import SCHEMA, decode, encode, take, timestamp
from trainyard.store.objects import Objects

log = logging.getLogger(__name__)
# Of the reason: it may quote much.
MOST_WORDS = 2000


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


@dataclass(frozen=True)
class Finding:
    """What a blob is that arrived wrong. sound: what S3 holds is right; etag: of what was read, None if
    nothing is there; size, sha256: as found."""

    sound: bool
    etag: str | None
    size: int = 0
    sha256: str = ""


def condemn(
    objects: Objects, fingerprint: str, path: str, reason: str, *, clock: Callable[[], float] = time.time
) -> bool:
    """Mark the bundle that stands: the next release of it compiles. False: there is none.

    Raises PermanentError (not allowed to write there), StoreUnavailable.
    """
    standing = objects.get_or_none(keys.bundle_manifest(fingerprint))
    if standing is None:
        return False
    damage = Damage(fingerprint, digest_of(standing.body), path, reason[:MOST_WORDS], timestamp(clock()))
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


def examine(objects: Objects, digest: str, size: int) -> Finding:
    """Read a blob once more, by itself: one bad line must not cost everybody a good blob.

    Raises StoreUnavailable, Conflict (it is written anew right now).
    """
    key, seen = keys.blob(digest), hashlib.sha256()
    try:
        found = objects.head(key)
        for chunk in transfer.read_chunks(objects, key, found.size, etag=found.etag):
            seen.update(chunk)
    except NotFound:
        return Finding(sound=False, etag=None)
    except CorruptArtifact:  # S3 gives less than it says
        return Finding(False, found.etag, found.size)
    sound = (found.size, seen.hexdigest()) == (size, digest)
    return Finding(sound, found.etag, found.size, seen.hexdigest())


def set_aside(
    objects: Objects,
    digest: str,
    size: int,
    found: Finding,
    reason: str,
    *,
    clock: Callable[[], float] = time.time,
) -> None:
    """Move the damaged version of a blob to quarantine/, so that a publisher or a fetch writes it anew.

    Raises PermanentError (not allowed), Conflict (it was written anew meanwhile), StoreUnavailable.
    """
    if found.sound or found.etag is None:
        return
    key, aside = keys.blob(digest), keys.quarantined_blob(digest, found.etag)
    told = {
        "schema": SCHEMA,
        "kind": "quarantine",
        "key": key,
        "size": size,
        "found_size": found.size,
        "found_sha256": found.sha256,
        "reason": reason[:MOST_WORDS],
        "at": timestamp(clock()),
    }
    objects.put(f"{aside}.json", encode(told))
    objects.copy(key, aside, found.etag)
    objects.delete_version(key, found.etag)
    log.warning("s3://%s/%s is damaged: it was set aside as %s", objects.bucket, key, aside)


def handle(
    objects: Objects, digest: str, size: int, fingerprint: str | None, path: str, reason: str
) -> str | None:
    """Do what this process may do about a blob that arrived wrong twice; returns what was done, in words.
    None: S3's copy is sound, the damage is on the way.

    fingerprint: of the bundle that names it. Pods that serve need not be allowed to write: who reads their
    error calls `condemn` then. Raises StoreUnavailable, Conflict.
    """
    found = examine(objects, digest, size)
    if found.sound:
        return None
    done = []
    try:
        set_aside(objects, digest, size, found, reason)
        done.append("The blob is set aside in quarantine/." if found.etag else "The blob is gone.")
    except TrainyardError as error:
        log.warning("cannot set the blob %s aside: %s", digest, error)
        done.append(f"Move {keys.blob(digest)} away: this account could not.")
    if fingerprint is None:
        done.append("Release again: what is missing of the model is fetched anew.")
        return " ".join(done)
    try:
        condemn(objects, fingerprint, path, reason)
        done.append("The bundle is marked: release again, and it is compiled anew.")
    except TrainyardError as error:
        log.warning("cannot mark bundle %s: %s", fingerprint, error)
        done.append(f"Delete {keys.bundle_manifest(fingerprint)} and release again: it could not be marked.")
    return " ".join(done)


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
