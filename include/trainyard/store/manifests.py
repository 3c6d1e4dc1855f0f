"""A file of a manifest, and what both kinds of manifest share.

A file is a blob of its own, or lies in a pack: a blob of many small files one after another. Each file keeps
its own digest either way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from trainyard.errors import CorruptArtifact, Refused
from trainyard.store import keys
from trainyard.store.documents import take, take_optional

# A manifest of 100,000 files is some 20 MB: more is not a model or a bundle.
MAX_FILES = 100_000
# What a file system can count; Python would add up numbers of any length, and then fail to print them.
MAX_SIZE = 1 << 63


@dataclass(frozen=True)
class Pack:
    """The blob that a small file lies in, by digest, and where it begins there, in bytes."""

    sha256: str
    offset: int


@dataclass(frozen=True, order=True)
class FileEntry:
    """path below the tree's root, with '/'; size in bytes; sha256 in lower-case hex; pack: where it lies if
    it is no blob of its own. Entries are equal if their contents are, wherever they lie."""

    path: str
    size: int
    sha256: str
    pack: Pack | None = field(default=None, compare=False)

    @property
    def blob(self) -> str:
        """Digest of the blob that holds the file."""
        return self.pack.sha256 if self.pack else self.sha256

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"path": self.path, "size": self.size, "sha256": self.sha256}
        if self.pack is None:
            return plain
        return {**plain, "pack": {"sha256": self.pack.sha256, "offset": self.pack.offset}}

    @staticmethod
    def from_json(document: Any, where: str) -> FileEntry:
        """Raises CorruptArtifact, naming `where`."""
        if not isinstance(document, dict):
            raise CorruptArtifact(f"{where}: a file is {document!r}, not an object.")
        entry = FileEntry(
            take(document, "path", str, where),
            take(document, "size", int, where),
            take(document, "sha256", str, where),
            _pack(document, where),
        )
        try:
            keys.check_path("path", entry.path)
            keys.check_digest("sha256", entry.sha256)
            keys.check_digest("pack.sha256", entry.blob)
        except Refused as error:
            raise CorruptArtifact(f"{where}: {error}") from error
        if not 0 <= entry.size < MAX_SIZE:
            raise CorruptArtifact(f"{where}: {entry.path} has size {entry.size}.")
        if entry.pack and not 0 <= entry.pack.offset < MAX_SIZE:
            raise CorruptArtifact(f"{where}: {entry.path} begins at {entry.pack.offset} of its pack.")
        return entry


class HasFiles(Protocol):
    """A manifest of a model or a bundle, or a staged listing."""

    @property
    def files(self) -> tuple[FileEntry, ...]: ...


def blobs_of(manifest: HasFiles | Iterable[FileEntry]) -> dict[str, int]:
    """Every blob that the manifest needs, packs included: digest -> size in bytes.

    All of a manifest's files, not some of them: a pack's size is where its last file ends.
    """
    files = manifest if isinstance(manifest, Iterable) else manifest.files
    sizes: dict[str, int] = {}
    for entry in files:
        end = entry.size + (entry.pack.offset if entry.pack else 0)
        sizes[entry.blob] = max(sizes.get(entry.blob, 0), end)
    return sizes


def _pack(document: dict[str, Any], where: str) -> Pack | None:
    pack = take_optional(document, "pack", dict, where)
    return None if pack is None else Pack(take(pack, "sha256", str, where), take(pack, "offset", int, where))


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
