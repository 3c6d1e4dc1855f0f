"""Brings models and bundles from S3 to a pod's disk, verified, and installs the zipapp beside them."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from trainyard.errors import PermanentError
from trainyard.jobs.install import install
from trainyard.jobs.progress import Progress
from trainyard.jobs.runtime import field, open_store
from trainyard.store.trees import chosen, materialise, read_files

log = logging.getLogger(__name__)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Job: {"bucket", "sources": [{"manifest": key, "into": folder, "without": [globs]}],
    "install": folder | null}.

    without: files that are not wanted there, such as weights that the bundle holds already.

    Result: {"sources": [{"manifest", "into", "fetched", "kept", "bytes"}], "zipapp": path | null, "seconds"}.
    """
    began = time.monotonic()
    sources = field(job, "sources", list)
    zipapp = field(job, "install", str, None)
    installed = str(install(Path(zipapp))) if zipapp else None
    objects = open_store(job)
    wanted = []
    for source in sources:
        if not isinstance(source, dict):
            raise PermanentError(
                f"TRAINYARD_JOB: a source is {source!r}, not an object with `manifest` and `into`."
            )
        without = tuple(field(source, "without", list, []))
        wanted.append((field(source, "manifest", str), Path(field(source, "into", str)), without))
    listed = [
        (key, into, without, chosen(read_files(objects, key), without)) for key, into, without in wanted
    ]
    _check_overlap([(into, {entry.path: entry.sha256 for entry in files}) for _, into, _, files in listed])
    done = []
    for key, into, without, files in listed:
        with Progress(f"materialise {key}", sum(entry.size for entry in files), len(files)) as progress:
            result = materialise(objects, key, into, without=without, progress=progress.add)
        log.info("%s: %d files fetched, %d were there", into, result.fetched, result.kept)
        done.append(
            {
                "manifest": key,
                "into": str(into),
                "fetched": result.fetched,
                "kept": result.kept,
                "bytes": result.bytes,
            }
        )
    return {"sources": done, "zipapp": installed, "seconds": round(time.monotonic() - began, 3)}


def _check_overlap(trees: list[tuple[Path, dict[str, str]]]) -> None:
    """Two manifests may share a folder as long as they agree on every path."""
    for number, (into, files) in enumerate(trees):
        for other, others in trees[:number]:
            clash = [path for path in files if other == into and others.get(path, files[path]) != files[path]]
            if clash:
                raise PermanentError(
                    f"Two sources bring different contents of {clash[0]} into {into}. Give each a folder of "
                    "its own."
                )
