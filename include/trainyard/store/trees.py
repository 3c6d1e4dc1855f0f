"""A manifest's files on disk: fetched in parallel, verified while written, and not fetched again when they
are there."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainyard.errors import CorruptArtifact, NotFound, PermanentError
from trainyard.store import keys, transfer
from trainyard.store.documents import SCHEMA, decode
from trainyard.store.manifests import FileEntry, files_from_json
from trainyard.store.objects import Objects
from trainyard.store.parallel import Stop, run_all

PARALLEL = 8
# Left free on the disk, for logs and caches of whoever runs beside.
SPARE_BYTES = 64 << 20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Materialised:
    """fetched, kept: files; bytes: read from S3."""

    fetched: int
    kept: int
    bytes: int


def read_files(objects: Objects, manifest_key: str) -> tuple[FileEntry, ...]:
    """Files that a model's or a bundle's manifest names. Raises NotFound, CorruptArtifact."""
    document = decode(objects.get(manifest_key).body, manifest_key)
    if document.get("kind") not in ("model", "bundle"):
        raise CorruptArtifact(f"{manifest_key} is no manifest of a model or a bundle.")
    return files_from_json(document, manifest_key)


def chosen(files: tuple[FileEntry, ...], without: tuple[str, ...]) -> tuple[FileEntry, ...]:
    """The files that match none of the globs."""
    return tuple(
        entry for entry in files if not any(fnmatch.fnmatch(entry.path, pattern) for pattern in without)
    )


def materialise(
    objects: Objects,
    manifest_key: str,
    into: Path,
    *,
    without: tuple[str, ...] = (),
    parallel: int = PARALLEL,
    progress: Callable[[int], None] | None = None,
) -> Materialised:
    """Make `into` hold the manifest's files, but for those that match a glob of `without`.

    A second call after a restart reads the manifest only.

    Raises NotFound (no such manifest), CorruptArtifact (naming the file), PermanentError (disk full).
    """
    files = chosen(read_files(objects, manifest_key), without)
    into.mkdir(parents=True, exist_ok=True)
    for leftover in into.rglob(".*.part"):
        leftover.unlink(missing_ok=True)
    marker = into / marker_name(manifest_key)
    known = _read_marker(marker)
    missing = [entry for entry in files if not _is_there(into / entry.path, entry, known.get(entry.path))]
    wanted = sum(entry.size for entry in missing)
    free = shutil.disk_usage(into).free
    if missing and free < wanted + SPARE_BYTES:
        raise PermanentError(
            f"{manifest_key} needs {wanted} bytes more below {into}, and {free} are free. "
            "Give the pod more ephemeral storage, or a larger instance store."
        )
    stop = Stop()

    def moved(size: int) -> None:
        stop.check()
        if progress:
            progress(size)

    ranges = ThreadPoolExecutor(max_workers=parallel)
    try:
        run_all([partial(_fetch, objects, entry, into, ranges, moved) for entry in missing], parallel, stop)
    finally:
        ranges.shutdown(wait=False, cancel_futures=True)
    _write_marker(marker, manifest_key, into, files)
    return Materialised(len(missing), len(files) - len(missing), wanted)


def marker_name(manifest_key: str) -> str:
    """Name of the file that says a manifest's files are all there. Hidden: no loader looks at it."""
    return f".trainyard-{hashlib.sha256(manifest_key.encode()).hexdigest()[:12]}.json"


def _fetch(
    objects: Objects,
    entry: FileEntry,
    into: Path,
    ranges: ThreadPoolExecutor,
    progress: Callable[[int], None],
) -> None:
    key = keys.blob(entry.sha256)
    for attempt in (1, 2):
        try:
            transfer.download(
                objects,
                key,
                into / entry.path,
                size=entry.size,
                sha256=entry.sha256,
                pool=ranges,
                progress=progress,
            )
            return
        except CorruptArtifact as error:
            # Once may have happened on the way; twice is how it lies there.
            if attempt == 2:
                raise CorruptArtifact(
                    f"{entry.path} is damaged in S3: {error} Delete that blob and the manifest, then release "
                    "again."
                ) from error
            log.warning("%s arrived damaged, fetching it again", entry.path)
        except NotFound as error:
            raise CorruptArtifact(
                f"{entry.path}: its blob s3://{objects.bucket}/{key} is gone. Delete the manifest, then "
                "release again."
            ) from error


def _is_there(path: Path, entry: FileEntry, known: Any) -> bool:
    """Is the verified file there? Without a marker (a restart in the middle) it is hashed: cheaper than the
    network."""
    try:
        status = path.lstat()
    except OSError:
        return False
    if path.is_symlink() or not path.is_file() or status.st_size != entry.size:
        return False
    if known == {"sha256": entry.sha256, "size": entry.size, "mtime_ns": status.st_mtime_ns}:
        return True
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == entry.sha256


def _read_marker(marker: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        document = json.loads(marker.read_bytes())
        if (
            isinstance(document, dict)
            and document.get("schema") == SCHEMA
            and isinstance(document["files"], dict)
        ):
            return document["files"]
    return {}


def _write_marker(marker: Path, manifest_key: str, into: Path, files: tuple[FileEntry, ...]) -> None:
    listed = {
        entry.path: {
            "sha256": entry.sha256,
            "size": entry.size,
            "mtime_ns": (into / entry.path).stat().st_mtime_ns,
        }
        for entry in files
    }
    temporary = marker.with_suffix(".part")
    temporary.write_text(json.dumps({"schema": SCHEMA, "manifest": manifest_key, "files": listed}))
    temporary.replace(marker)
