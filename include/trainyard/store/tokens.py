"""The newest fencing token of a model: what every guarded write compares its own with."""

from __future__ import annotations

from trainyard.store import keys
from trainyard.store.documents import decode, take
from trainyard.store.objects import Objects


def current_token(objects: Objects, model: str) -> int:
    """The newest token ever given out for the model; 0 if none."""
    key = keys.lease(model)
    stored = objects.get_or_none(key)
    return 0 if stored is None else take(decode(stored.body, key), "token", int, key)
