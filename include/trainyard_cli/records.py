"""Reads releases from the ledger, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from trainyard.errors import NotFound, TrainyardError
from trainyard.release import Release, parse_release
from trainyard.settings import Settings
from trainyard.stages.progress import add_progress
from trainyard.store.channels import Channel, Channels
from trainyard.store.ledger import Ledger
from trainyard.store.objects import Objects, client


@cache
def objects() -> Objects:
    """With the credentials of the environment, as everywhere with boto3."""
    return Objects(client(attempts=2), Settings().bucket)


def release(model: str, release_id: str) -> Release:
    return parse_release(Ledger(objects()).read(model, release_id).document)


def releases(model: str) -> list[Release]:
    """Newest first."""
    found = [parse_release(item.document) for item in Ledger(objects()).list(model)]
    return sorted(found, key=lambda item: item.created_at, reverse=True)


def channel(model: str) -> Channel:
    return Channels(objects()).read(model)


def by_run(find: Callable[[], dict[str, str] | None]) -> Callable[[str], dict[str, Any] | None]:
    """A reader of the record of a run. find: {"model", "release"} once `plan` knows it."""
    where: dict[str, str] = {}

    def read(run_id: str) -> dict[str, Any] | None:
        try:
            if not where:
                where.update(find() or {})
            if not where:
                return None
            record = Ledger(objects()).read(where["model"], where["release"]).document
            add_progress(objects(), record)
            return record
        except (NotFound, TrainyardError):
            return None

    return read
