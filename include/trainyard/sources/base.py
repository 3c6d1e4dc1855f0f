"""What the fetch needs of a place that files come from. Everything is read at a pinned revision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from trainyard.errors import CorruptArtifact
from trainyard.hub_headers import Header, parse_header, parse_length
from trainyard.hub_policy import HubFile
from trainyard.hub_reader import RangeIgnored
from trainyard.store.objects import Objects

# One read brings length and header of most shards.
HEADER_GUESS = 64 << 10
MAX_JSON = 16 << 20


class Reader(Protocol):
    """One file. Used by several threads at once."""

    def read_into(self, start: int, view: memoryview, check_stop: Callable[[], None]) -> None:
        """Fill `view` with the bytes from `start`. Raises RangeIgnored if only the whole file can be had."""


class Listing(Protocol):
    """What a plan reads of a model, before a byte of its weights moves."""

    def files(self, revision: str) -> list[HubFile]:
        """Every file of the revision. Raises NotFound, Conflict if the source is another by now."""

    def read_json(self, revision: str, path: str) -> dict[str, Any]: ...

    def headers(self, revision: str, files: Iterable[HubFile]) -> Mapping[str, Header]:
        """Of the safetensors among `files`, checked. Raises CorruptArtifact."""


class Source(Listing, Protocol):
    """label: for people and the manifest. A file's digest is None where the source does not know it."""

    label: str

    def pin(self) -> str:
        """40 hex digits that stand for these files: the Hub's commit, else a digest of the listing."""

    def identify(self, revision: str, file: HubFile) -> HubFile:
        """The file with its SHA-256, or as it is: then it is small, and `blob_id` is git's."""

    def reader(self, revision: str, file: HubFile) -> Reader: ...

    def stream(self, revision: str, file: HubFile) -> Iterator[bytes]:
        """All bytes in order, for sources that ignore ranges."""

    def copy(self, objects: Objects, file: HubFile) -> bool:
        """Make the file a blob without its bytes passing here; False where that cannot be."""


def listing_digest(files: Iterable[HubFile]) -> str:
    """40 hex digits of paths, sizes and what identifies their content: stands in for a commit."""
    listed = sorted((file.path, file.size, file.lfs_sha256 or file.blob_id) for file in files)
    return hashlib.sha256(json.dumps(listed, ensure_ascii=False).encode()).hexdigest()[:40]


def read_header(read: Callable[[int, int], bytes], file: HubFile, where: str) -> Header:
    """A safetensors file's header through `read(start, length)`. Raises CorruptArtifact."""
    start = read(0, min(HEADER_GUESS, file.size))
    length = parse_length(start, file.size, where)
    if (missing := 8 + length - len(start)) > 0:
        start += read(len(start), missing)
    return parse_header(start[8 : 8 + length], file.size, where)


def parse_json(body: bytes, where: str) -> dict[str, Any]:
    """Raises CorruptArtifact."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"{where} is no JSON ({error}).") from error
    if not isinstance(document, dict):
        raise CorruptArtifact(f"{where} is a JSON {type(document).__name__}, not an object.")
    return document


__all__ = ["Listing", "RangeIgnored", "Reader", "Source", "listing_digest", "parse_json", "read_header"]
