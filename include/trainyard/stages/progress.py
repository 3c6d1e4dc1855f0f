"""How far a fetch is, while it runs: the pod writes it beside the record, and here it becomes words."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from trainyard.errors import PermanentError, TrainyardError
from trainyard.jobs.progress import words
from trainyard.release import Release, parse_release
from trainyard.store import keys
from trainyard.store.documents import decode
from trainyard.store.objects import Objects

STAGE = "fetch_model"


def fetch_progress(objects: Objects, release_id: str) -> str:
    """`12.0 GiB of 220.0 GiB, 510.2 MiB/s, 12 of 50 files, 7 min left`; empty where nothing was said."""
    figures = read_figures(objects, release_id)
    try:
        return words(figures) if figures else ""
    except (KeyError, TypeError, ValueError):
        return ""  # of another Trainyard: no figure is worth a failure


def read_figures(objects: Objects, release_id: str) -> dict[str, Any] | None:
    key = keys.progress(release_id)
    stored = objects.get_or_none(key)
    if stored is None:
        return None
    try:
        return decode(stored.body, key)
    except PermanentError:  # no document, or a newer Trainyard's
        return None


def with_progress(objects: Objects, release: Release) -> Release:
    """The release as pages and terminals show it: a fetch that runs says how far it is."""
    document = release.document()
    if not add_progress(objects, document):
        return release
    return parse_release(document)


def add_progress(objects: Objects, record: dict[str, Any]) -> bool:
    """Writes it as the note of a fetch that runs; of a record's document, in memory only."""
    stage = (record.get("stages") or {}).get(STAGE) or {}
    if stage.get("state") != "running":
        return False
    try:
        note = fetch_progress(objects, str(record["id"]))
    except TrainyardError:
        return False
    if note:
        stage["note"] = note
    return bool(note)


def forget(objects: Objects, release_id: str) -> None:
    """The fetch has ended, and the record says how."""
    with suppress(TrainyardError):  # housekeeping sweeps what stays
        objects.delete(keys.progress(release_id))


def doing(release: Release) -> str:
    """What a release that runs is at, in a line; empty once it has ended."""
    running = [(name, stage) for name, stage in release.stages.items() if stage.state == "running"]
    if release.state != "running" or not running:
        return ""
    name, stage = max(running, key=lambda item: item[1].started_at)
    return f"{name}: {first}" if (first := stage.note.split("\n")[0]) else name
