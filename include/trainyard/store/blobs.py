"""Content by digest. A blob under its key has been verified: nothing is written there before its digest was
computed."""

from __future__ import annotations

import hashlib

from trainyard.errors import CorruptArtifact
from trainyard.store import keys, transfer
from trainyard.store.objects import Objects


def has_blob(objects: Objects, digest: str, size: int) -> bool:
    """Is the blob there? One of another size is not it: it is written again."""
    found = objects.head_or_none(keys.blob(digest))
    return found is not None and found.size == size


def put_blob(objects: Objects, content: bytes) -> str:
    """Store small content; returns its digest."""
    digest = hashlib.sha256(content).hexdigest()
    if not has_blob(objects, digest, len(content)):
        objects.put(keys.blob(digest), content)
    return digest


def read_blob(objects: Objects, digest: str) -> bytes:
    """Small content, verified. Raises NotFound, CorruptArtifact."""
    content = objects.get(keys.blob(digest)).body
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise CorruptArtifact(
            f"s3://{objects.bucket}/{keys.blob(digest)} has SHA-256 {found}: it was damaged."
        )
    return content


def adopt(objects: Objects, staged: str, digest: str, size: int) -> bool:
    """Verify a staged object and copy it to its blob inside S3. Returns False if the blob was there already.

    Raises NotFound if nothing is staged there, CorruptArtifact if its size or digest differ.
    """
    found = objects.head(staged)
    where = f"s3://{objects.bucket}/{staged}"
    if found.size != size:
        raise CorruptArtifact(f"{where} has {found.size} bytes, its listing says {size}. Compile again.")
    seen = hashlib.sha256()
    for chunk in transfer.read_chunks(objects, staged, size, etag=found.etag):
        seen.update(chunk)
    if seen.hexdigest() != digest:
        raise CorruptArtifact(
            f"{where} has SHA-256 {seen.hexdigest()}, its listing says {digest}. Compile again."
        )
    if has_blob(objects, digest, size):
        return False
    # Exactly the version that was read: the ETag is the proof.
    objects.copy(staged, keys.blob(digest), found.etag)
    return True
