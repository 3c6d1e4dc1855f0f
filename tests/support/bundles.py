"""Compile results as a pod stages them, and bundles of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainyard.store import keys
from trainyard.store.bundles import Published, publish_bundle
from trainyard.store.objects import Objects
from trainyard.store.staging import StagedResult, stage_tree, write_result

FINGERPRINT = "f1"


def write_tree(folder: Path, content: Mapping[str, bytes]) -> Path:
    for path, body in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)
    return folder


def read_tree(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, but for our own marker."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".trainyard-")
    }


def stage_folder(store: Objects, folder: Path, attempt: str = "a1", fingerprint: str = FINGERPRINT) -> str:
    """Returns the prefix."""
    prefix = keys.staging(fingerprint, attempt)
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    files, held = stage_tree(store, prefix, folder, paths)
    write_result(store, prefix, StagedResult(fingerprint, attempt, files, 1.0, None, held), {})
    return prefix


def publish_staged(store: Objects, prefix: str, fingerprint: str = FINGERPRINT) -> Published:
    return publish_bundle(
        store, fingerprint, prefix, inputs={"tp": 4}, engine="optimum", versions={}, target="trn2"
    )


def publish_folder(store: Objects, folder: Path, attempt: str = "a1") -> Published:
    return publish_staged(store, stage_folder(store, folder, attempt))
