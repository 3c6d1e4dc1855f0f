"""Brings models and bundles from S3 to a pod's disk, verified, and installs the zipapp beside them."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainyard.errors import PermanentError
from trainyard.jobs.install import install
from trainyard.jobs.progress import Progress
from trainyard.jobs.runtime import field, open_store
from trainyard.store.node_cache import NodeCache
from trainyard.store.trees import materialise, read_tree

log = logging.getLogger(__name__)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Job: {"bucket", "sources": [{"manifest": key, "into": folder, "without": [globs], "sha256": of the
    manifest | null}], "install": folder | null, "node_cache": {"folder", "max_bytes"} | null}.

    without: files that are not wanted there, such as weights that the bundle holds already. node_cache: a
    folder that the node's pods share.

    Result: {"sources": [{"manifest", "into", "fetched", "kept", "bytes", "cached"}], "zipapp": path | null,
    "seconds"}.
    """
    began = time.monotonic()
    sources = field(job, "sources", list)
    zipapp = field(job, "install", str, None)
    installed = str(install(Path(zipapp))) if zipapp else None
    objects, cache = open_store(job), open_cache(job)
    trees = []
    for source in sources:
        if not isinstance(source, dict):
            raise PermanentError(
                f"TRAINYARD_JOB: a source is {source!r}, not an object with `manifest` and `into`."
            )
        tree = read_tree(
            objects,
            field(source, "manifest", str),
            without=tuple(field(source, "without", list, [])),
            sha256=field(source, "sha256", str, None),
        )
        trees.append((tree, Path(field(source, "into", str))))
    _check_overlap([(into, {entry.path: entry.sha256 for entry in tree.wanted}) for tree, into in trees])
    done = []
    for tree, into in trees:
        with Progress(f"materialise {tree.key}", tree.size, len(tree.wanted)) as progress:
            result = materialise(objects, tree, into, progress=progress.add, cache=cache)
        log.info("%s: %d files fetched, %d were there", into, result.fetched, result.kept)
        done.append({"manifest": tree.key, "into": str(into), **asdict(result)})
    return {"sources": done, "zipapp": installed, "seconds": round(time.monotonic() - began, 3)}


def open_cache(job: dict[str, Any]) -> NodeCache | None:
    """The node's cache, if the job names one that can be used. Nothing that is wrong with it fails a pod."""
    given = field(job, "node_cache", dict, None)
    if given is None:
        return None
    folder, most = Path(field(given, "folder", str)), field(given, "max_bytes", int, None)
    try:
        return NodeCache(folder, most)
    except OSError as error:
        log.warning("cache: going on without %s: %s", folder, error)
        return None


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
