"""A file of a manifest, and what both kinds of manifest share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trainyard.errors import CorruptArtifact, Refused
from trainyard.store import keys
from trainyard.store.documents import take

# A manifest of 100,000 files is some 20 MB: more is not a model or a bundle.
MAX_FILES = 100_000


@dataclass(frozen=True, order=True)
class FileEntry:
    """path below the tree's root, with '/'; size in bytes; sha256 in lower-case hex."""

    path: str
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size, "sha256": self.sha256}

    @staticmethod
    def from_json(document: Any, where: str) -> FileEntry:
        """Raises CorruptArtifact, naming `where`."""
        if not isinstance(document, dict):
            raise CorruptArtifact(f"{where}: a file is {document!r}, not an object.")
        entry = FileEntry(
            take(document, "path", str, where),
            take(document, "size", int, where),
            take(document, "sha256", str, where),
        )
        try:
            keys.check_path("path", entry.path)
            keys.check_digest("sha256", entry.sha256)
        except Refused as error:
            raise CorruptArtifact(f"{where}: {error}") from error
        if entry.size < 0:
            raise CorruptArtifact(f"{where}: {entry.path} has size {entry.size}.")
        return entry


def files_from_json(document: dict[str, Any], where: str) -> tuple[FileEntry, ...]:
    """Field `files`: checked, sorted by path, no path twice, none inside another."""
    listed = take(document, "files", list, where)
    if len(listed) > MAX_FILES:
        raise CorruptArtifact(f"{where} names {len(listed)} files; the limit is {MAX_FILES}.")
    return check_tree((FileEntry.from_json(item, where) for item in listed), where)


def check_tree(files: Iterable[FileEntry], where: str) -> tuple[FileEntry, ...]:
    """Files in path order. Raises CorruptArtifact if they cannot be one tree on disk."""
    ordered = tuple(sorted(files))
    paths: set[str] = set()
    for entry in ordered:
        if entry.path in paths:
            raise CorruptArtifact(f"{where} names {entry.path} twice.")
        paths.add(entry.path)
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in paths:
                raise CorruptArtifact(f"{where}: {parent} is a file and a folder of {path}.")
            parent = parent.rpartition("/")[0]
    return ordered
