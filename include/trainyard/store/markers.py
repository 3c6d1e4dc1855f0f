"""What says that a manifest's files are there and were verified: a marker beside them, by size and time of
change. Without a marker (a restart in the middle) a file is hashed: cheaper than the network."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainyard.errors import CorruptArtifact
from trainyard.store.documents import SCHEMA
from trainyard.store.manifests import FileEntry

_CHUNK = 1 << 20


def name(manifest_key: str) -> str:
    """Hidden: no loader looks at it."""
    return f".trainyard-{hashlib.sha256(manifest_key.encode()).hexdigest()[:12]}.json"


def read(marker: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        document = json.loads(marker.read_bytes())
        if (
            isinstance(document, dict)
            and document.get("schema") == SCHEMA
            and isinstance(document["files"], dict)
        ):
            return document["files"]
    return {}


def state(path: Path, entry: FileEntry, known: Mapping[str, Any]) -> int | None:
    """Time of the last change (ns) of the file that is there and right; None if it has to be brought."""
    try:
        status = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
        return None
    if known.get(entry.path) == {
        "sha256": entry.sha256,
        "size": entry.size,
        "mtime_ns": status.st_mtime_ns,
    }:
        return status.st_mtime_ns
    with path.open("rb", buffering=0) as file:
        return status.st_mtime_ns if digest_of_file(file.fileno()) == entry.sha256 else None


def write(
    marker: Path, manifest_key: str, files: Iterable[FileEntry], states: Mapping[str, int | None]
) -> None:
    listed = {
        entry.path: {"sha256": entry.sha256, "size": entry.size, "mtime_ns": states[entry.path]}
        for entry in files
    }
    temporary = marker.with_suffix(".part")
    temporary.write_text(json.dumps({"schema": SCHEMA, "manifest": manifest_key, "files": listed}))
    temporary.replace(marker)


def digest_of_file(file: int) -> str:
    """SHA-256 of the open file, read from its beginning; its position does not matter."""
    seen, at = hashlib.sha256(), 0
    while chunk := os.pread(file, _CHUNK, at):
        seen.update(chunk)
        at += len(chunk)
    return seen.hexdigest()


def check(content: bytes, entry: FileEntry, where: str) -> None:
    """Raises CorruptArtifact, naming the file, if it is not its content."""
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        error = CorruptArtifact(f"{entry.path}: {where} holds SHA-256 {found} for it, not {entry.sha256}.")
        error.path = entry.path  # type: ignore[attr-defined]
        raise error
