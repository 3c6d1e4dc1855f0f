"""What a compile pod leaves in S3 for the publisher: objects below a prefix, and a listing that comes last.

S3 checks every object while it comes in: small ones and packs against the SHA-256 that is sent with them,
larger ones part by part against a CRC32 of the same bytes that are hashed here. The listing keeps the ETag of
each. So the publisher knows what lies there without reading it (`blobs.adopt`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainyard.errors import CorruptArtifact, NotFound, Refused
from trainyard.store import keys, transfer
from trainyard.store.documents import SCHEMA, decode, encode, take, take_optional
from trainyard.store.manifests import MAX_FILES, FileEntry, Pack, files_from_json
from trainyard.store.objects import Objects
from trainyard.store.packs import group
from trainyard.store.parallel import Stop, run_all

# Each holds a few parts of a large file, or one pack, in memory.
PARALLEL = 4


@dataclass(frozen=True)
class StagedObject:
    """name: below the staging prefix; size in bytes; sha256 in hex; etag: what S3 answered to the upload."""

    name: str
    size: int
    sha256: str
    etag: str | None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size, "sha256": self.sha256, "etag": self.etag}

    @staticmethod
    def from_json(document: Any, where: str) -> StagedObject:
        if not isinstance(document, dict):
            raise CorruptArtifact(f"{where}: an object is {document!r}, not an object of JSON.")
        made = StagedObject(
            take(document, "name", str, where),
            take(document, "size", int, where),
            take(document, "sha256", str, where),
            take_optional(document, "etag", str, where),
        )
        try:
            keys.check_path("name", made.name)
            keys.check_digest("sha256", made.sha256)
        except Refused as error:
            raise CorruptArtifact(f"{where}: {error}") from error
        return made


@dataclass(frozen=True)
class StagedResult:
    """What a compile job left, and how it went. files: the tree; objects: what holds it, below the staging
    prefix (empty: each file is `files/<path>`, and S3's word on it was not kept)."""

    fingerprint: str
    attempt: str
    files: tuple[FileEntry, ...]
    seconds: float
    log_key: str | None
    objects: tuple[StagedObject, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "staged",
            "fingerprint": self.fingerprint,
            "attempt": self.attempt,
            "files": [entry.to_json() for entry in self.files],
            "seconds": self.seconds,
            "log_key": self.log_key,
            "objects": [each.to_json() for each in self.objects],
        }

    @staticmethod
    def from_json(document: dict[str, Any], where: str) -> StagedResult:
        listed = take_optional(document, "objects", list, where) or []
        if len(listed) > MAX_FILES:
            raise CorruptArtifact(f"{where} names {len(listed)} objects; the limit is {MAX_FILES}.")
        return StagedResult(
            fingerprint=take(document, "fingerprint", str, where),
            attempt=take(document, "attempt", str, where),
            files=files_from_json(document, where),
            seconds=take(document, "seconds", float, where),
            log_key=take_optional(document, "log_key", str, where),
            objects=tuple(StagedObject.from_json(item, where) for item in listed),
        )

    def held(self) -> tuple[StagedObject, ...]:
        """The objects that hold the files. Raises CorruptArtifact if some file lies in none of them."""
        if not self.objects:
            return tuple(
                StagedObject(f"files/{entry.path}", entry.size, entry.sha256, None) for entry in self.files
            )
        sizes = {each.sha256: each.size for each in self.objects}
        for entry in self.files:
            begin, size = (entry.pack.offset if entry.pack else 0), sizes.get(entry.blob, -1)
            if begin + entry.size > size or (entry.pack is None and entry.size != size):
                raise CorruptArtifact(
                    f"The staged listing of {self.fingerprint} names {entry.path}, which lies in none of its "
                    "objects. Compile again."
                )
        return self.objects


def staged_file(prefix: str, path: str) -> str:
    return f"{prefix}files/{path}"


def staged_result(prefix: str) -> str:
    """Key of the listing: written last, so a prefix without one is a compile that did not finish."""
    return f"{prefix}result.json"


def stage_tree(
    objects: Objects,
    prefix: str,
    folder: Path,
    paths: Sequence[Path],
    *,
    progress: Callable[[int], None] | None = None,
) -> tuple[tuple[FileEntry, ...], tuple[StagedObject, ...]]:
    """Upload the files at `paths` below `folder`, small ones in packs; returns the tree, and what holds it.

    Each file is read once. Raises Refused (a name that cannot be one), OSError, StoreUnavailable.
    """
    ordered = sorted(paths, key=lambda path: path.as_posix())
    names = [keys.check_path("file", path.as_posix()) for path in ordered]
    sizes = [(folder / path).stat().st_size for path in ordered]
    stop = Stop()

    def moved(size: int) -> None:
        stop.check()
        if progress:
            progress(size)

    def send_alone(index: int) -> tuple[list[FileEntry], StagedObject]:
        path, name = folder / ordered[index], f"files/{names[index]}"
        if sizes[index] <= transfer.PART_SIZE:
            sent = _send_small(objects, prefix, name, path.read_bytes())
            moved(sent.size)
        else:
            done = transfer.upload_file(objects, path, prefix + name, progress=moved)
            sent = StagedObject(name, done.size, done.sha256, done.etag)
        return [FileEntry(names[index], sent.size, sent.sha256)], sent

    def send_pack(number: int, indices: Sequence[int]) -> tuple[list[FileEntry], StagedObject]:
        contents = [(names[index], (folder / ordered[index]).read_bytes()) for index in indices]
        sent = _send_small(
            objects, prefix, f"packs/{number:05}", b"".join(content for _, content in contents)
        )
        moved(sent.size)
        entries, offset = [], 0
        for name, content in contents:
            digest = hashlib.sha256(content).hexdigest()
            entries.append(FileEntry(name, len(content), digest, Pack(sent.sha256, offset)))
            offset += len(content)
        return entries, sent

    grouped = group(sizes)
    # The largest first: a small one at the end does not leave the others idle.
    alone = sorted(grouped.alone, key=lambda index: -sizes[index])
    tasks = [partial(send_alone, index) for index in alone]
    tasks += [partial(send_pack, number, indices) for number, indices in enumerate(grouped.packs)]
    done = run_all(tasks, PARALLEL, stop)
    entries = sorted(entry for found, _ in done for entry in found)
    return tuple(entries), tuple(sent for _, sent in done)


def _send_small(objects: Objects, prefix: str, name: str, content: bytes) -> StagedObject:
    digest = hashlib.sha256(content).hexdigest()
    etag = objects.put_checked(prefix + name, content, digest)
    return StagedObject(name, len(content), digest, etag)


def write_result(objects: Objects, prefix: str, staged: StagedResult, told: dict[str, Any]) -> None:
    """Make what was staged visible. told: what else the record wants to know."""
    objects.put(staged_result(prefix), encode({**staged.to_json(), **told}))


def read_result(objects: Objects, fingerprint: str, prefix: str) -> StagedResult:
    """Raises NotFound (the compile did not finish), CorruptArtifact."""
    key = staged_result(prefix)
    try:
        staged = StagedResult.from_json(decode(objects.get(key).body, key), key)
    except NotFound as error:
        raise NotFound(f"{key} is missing: that compile did not finish. Compile again.") from error
    if staged.fingerprint != fingerprint:
        raise CorruptArtifact(
            f"{key} is of fingerprint {staged.fingerprint}, not {fingerprint}. Compile again."
        )
    if not staged.files:
        raise CorruptArtifact(
            f"{key} names no files. Look at the compiler's log ({staged.log_key}) and compile again."
        )
    return staged
