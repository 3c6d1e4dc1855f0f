"""How a stored object looks through the API version it is asked for."""

from __future__ import annotations

from local.apiserver.errors import Object
from local.apiserver.resources import Resource

_EVENT_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "source": "deprecatedSource",
    "reportingComponent": "reportingController",
}
_CORE_NAMES = {v: k for k, v in _EVENT_NAMES.items()}


def to_view(resource: Resource, stored: Object) -> Object:
    """The stored object as `resource` shows it; the same dict where nothing differs."""
    if stored["apiVersion"] == resource.api_version:
        return stored
    if resource.storage == ("", "events"):
        renamed = {_EVENT_NAMES.get(k, k): v for k, v in stored.items()}
        return {"eventTime": None, **renamed, "apiVersion": resource.api_version}
    return {**stored, "apiVersion": resource.api_version}


def to_stored(resource: Resource, shown: Object) -> Object:
    """The inverse: what is kept for an object that came in through `resource`."""
    if resource.group == "events.k8s.io":
        return {**{_CORE_NAMES.get(k, k): v for k, v in shown.items()}, "apiVersion": "v1"}
    return shown
