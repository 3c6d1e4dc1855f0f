"""How long compiles took: one short document an engine and target, read when a deadline is chosen.

history/compiles/<engine>-<target>.json: the newest last. A compile appends itself; nobody lists records.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

from trainyard.errors import Conflict, PermanentError
from trainyard.store import keys
from trainyard.store.documents import SCHEMA, decode, encode, take
from trainyard.store.objects import Objects

ATTEMPTS = 12
# Some 300 bytes each: a request of 60 KB at most.
KEPT = 200


def history_key(engine: str, target: str) -> str:
    return f"history/compiles/{keys.check_id('engine', engine)}-{keys.check_id('target', target)}.json"


def read_history(objects: Objects, key: str) -> tuple[Mapping[str, Any], ...]:
    """Samples, oldest first; none where nothing was compiled yet. Raises CorruptArtifact."""
    return _read(objects, key)[0]


def append_history(objects: Objects, key: str, sample: Mapping[str, Any]) -> None:
    """Adds a sample by compare-and-swap. A history that cannot be read is begun anew: it only tunes."""
    for attempt in range(ATTEMPTS):
        try:
            samples, etag = _read(objects, key)
        except PermanentError:
            stored = objects.get_or_none(key)
            samples, etag = (), stored.etag if stored else ""
        body = encode({"schema": SCHEMA, "samples": [*samples, dict(sample)][-KEPT:]})
        try:
            if etag:
                objects.replace(key, body, etag)
            else:
                objects.put_new(key, body)
            return
        except Conflict:
            time.sleep(random.uniform(0, 0.02) * 2 ** min(attempt, 6))
    raise Conflict(f"{key} was changed by others {ATTEMPTS} times in a row. Look who writes it.")


def _read(objects: Objects, key: str) -> tuple[tuple[Mapping[str, Any], ...], str]:
    stored = objects.get_or_none(key)
    if stored is None:
        return (), ""
    listed = take(decode(stored.body, key), "samples", list, key)
    return tuple(item for item in listed if isinstance(item, dict)), stored.etag
