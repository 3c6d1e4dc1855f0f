"""Content by digest. A blob under its key has been verified: nothing is written there before its digest was
computed, or S3 itself vouched for it."""

from __future__ import annotations

import hashlib

from trainyard.errors import Conflict, CorruptArtifact
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
        objects.put_checked(keys.blob(digest), content, digest)
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


def adopt(objects: Objects, staged: str, digest: str, size: int, etag: str | None = None) -> bool:
    """Make a staged object a blob by a copy inside S3. Returns False if the blob was there already.

    Verified without reading it where S3 can say: by the SHA-256 that it checked at the upload; or because it
    is still the very version (`etag`) whose parts it checked while their digest was computed. Else it is
    read. Where S3 computes the digest of the copy (AWS, up to 5 GiB), that has to agree as well.

    Raises NotFound if nothing is staged there, CorruptArtifact if its size or digest differ.
    """
    found = objects.attested(staged)
    where = f"s3://{objects.bucket}/{staged}"
    if found.size != size:
        raise CorruptArtifact(f"{where} has {found.size} bytes, its listing says {size}. Compile again.")
    seen = found.sha256
    if seen is None and etag is not None:
        if found.etag != etag:
            raise CorruptArtifact(
                f"{where} is not what was uploaded: its ETag is {found.etag}, not {etag}. Compile again."
            )
    elif seen is None:
        seen = _read_digest(objects, staged, size, found.etag)
    if seen not in (None, digest):
        raise CorruptArtifact(f"{where} has SHA-256 {seen}, its listing says {digest}. Compile again.")
    if has_blob(objects, digest, size):
        return False
    try:
        # Exactly the version that was looked at: the ETag is the proof.
        computed = objects.copy(staged, keys.blob(digest), found.etag)
    except Conflict as error:
        raise CorruptArtifact(
            f"{where} was written anew while it was published. Let one compile at a time stage there, and "
            "compile again."
        ) from error
    if computed not in (None, digest):
        objects.delete(keys.blob(digest))
        raise CorruptArtifact(
            f"{where} has SHA-256 {computed} by S3's own count, its listing says {digest}. Compile again."
        )
    return True


def _read_digest(objects: Objects, key: str, size: int, etag: str) -> str:
    seen = hashlib.sha256()
    for chunk in transfer.read_chunks(objects, key, size, etag=etag):
        seen.update(chunk)
    return seen.hexdigest()
