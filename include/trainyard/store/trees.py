"""A manifest's files on disk: fetched in parallel, verified while written, and not fetched again when they
are there."""

from __future__ import annotations

import fnmatch
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trainyard.errors import CorruptArtifact, PermanentError
from trainyard.store import markers
from trainyard.store.documents import decode
from trainyard.store.downloads import READERS, Downloads
from trainyard.store.manifests import FileEntry, blobs_of, files_from_json
from trainyard.store.node_cache import SPARE_BYTES, NodeCache
from trainyard.store.objects import Objects
from trainyard.store.parallel import Stop, run_all
from trainyard.store.placing import Placer

# Blobs at once, at most; connections decide how many of them move.
PARALLEL = READERS
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Materialised:
    """fetched, kept: files; bytes: of the files that were fetched; cached: bytes of them that came from the
    node's cache, not from S3."""

    fetched: int
    kept: int
    bytes: int
    cached: int = 0


@dataclass(frozen=True)
class Tree:
    """A manifest as far as its files go. key: of the manifest; fingerprint: of a bundle, None for a model;
    files: all of them; wanted: those to bring."""

    key: str
    fingerprint: str | None
    files: tuple[FileEntry, ...]
    wanted: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of what is wanted."""
        return sum(entry.size for entry in self.wanted)


def read_tree(
    objects: Objects, manifest_key: str, *, without: tuple[str, ...] = (), sha256: str | None = None
) -> Tree:
    """What a model's or a bundle's manifest names, but for files that match a glob of `without`.

    sha256: of the manifest, where the caller was told. Raises NotFound, CorruptArtifact.
    """
    document = decode(objects.get(manifest_key).body, manifest_key, sha256)
    if document.get("kind") not in ("model", "bundle"):
        raise CorruptArtifact(f"{manifest_key} is no manifest of a model or a bundle.")
    files = files_from_json(document, manifest_key)
    fingerprint = str(document.get("fingerprint")) if document["kind"] == "bundle" else None
    return Tree(manifest_key, fingerprint, files, chosen(files, without))


def chosen(files: tuple[FileEntry, ...], without: tuple[str, ...]) -> tuple[FileEntry, ...]:
    """The files that match none of the globs."""
    return tuple(
        entry for entry in files if not any(fnmatch.fnmatch(entry.path, pattern) for pattern in without)
    )


def materialise(
    objects: Objects,
    tree: Tree | str,
    into: Path,
    *,
    without: tuple[str, ...] = (),
    parallel: int = PARALLEL,
    progress: Callable[[int], None] | None = None,
    cache: NodeCache | None = None,
) -> Materialised:
    """Make `into` hold the tree's files (or those of the manifest at this key).

    A second call after a restart reads the manifest only. What is damaged in S3 is set aside there, and a
    bundle marked, as far as this account may.

    Raises NotFound (no such manifest), CorruptArtifact (naming the file), PermanentError (disk full),
    StoreUnavailable.
    """
    if isinstance(tree, str):
        tree = read_tree(objects, tree, without=without)
    into.mkdir(parents=True, exist_ok=True)
    remove_leftovers(into)
    marker = into / marker_name(tree.key)
    known = markers.read(marker)
    states = {entry.path: markers.state(into / entry.path, entry, known) for entry in tree.wanted}
    missing = [entry for entry in tree.wanted if states[entry.path] is None]
    wanted = sum(entry.size for entry in missing)
    free = shutil.disk_usage(into).free
    if missing and free < wanted + SPARE_BYTES:
        raise PermanentError(
            f"{tree.key} needs {wanted} bytes more below {into}, and {free} are free. "
            "Give the pod more ephemeral storage, or a larger instance store."
        )
    stop = Stop()

    def moved(size: int) -> None:
        stop.check()
        if progress:
            progress(size)

    with Downloads(objects) as downloads:
        placer = Placer(downloads, into, tree.fingerprint, cache, stop, moved)
        sizes = blobs_of(tree.files)
        tasks = [
            partial(placer.bring, blob, sizes[blob], entries) for blob, entries in _by_blob(missing, sizes)
        ]
        for found in run_all(tasks, parallel, stop):
            states.update(found)
    markers.write(marker, tree.key, tree.wanted, states)
    return Materialised(len(missing), len(tree.wanted) - len(missing), wanted, placer.cached)


def marker_name(manifest_key: str) -> str:
    """Name of the file that says a manifest's files are all there. Hidden: no loader looks at it."""
    return markers.name(manifest_key)


def remove_leftovers(into: Path) -> None:
    """What a killed process left half written."""
    for folder, _, names in os.walk(into):
        for name in names:
            if name.startswith(".") and name.endswith(".part"):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, name))


def _by_blob(missing: list[FileEntry], sizes: dict[str, int]) -> Iterator[tuple[str, list[FileEntry]]]:
    """Files by the blob that holds them, the largest first: a small one at the end leaves nobody idle."""
    grouped: dict[str, list[FileEntry]] = {}
    for entry in missing:
        grouped.setdefault(entry.blob, []).append(entry)
    yield from sorted(grouped.items(), key=lambda item: -sizes[item[0]])


def read_file(objects: Objects, entry: FileEntry) -> bytes:
    """One small file of a manifest, verified. Raises NotFound, CorruptArtifact."""
    start = entry.pack.offset if entry.pack else 0
    content = Downloads(objects, 1).read(entry.blob, start, entry.size)
    markers.check(content, entry, f"s3://{objects.bucket}: blob {entry.blob}")
    return content
