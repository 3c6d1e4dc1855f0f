"""managedFields: who owns which field, kept up by every write, asked by server-side apply."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from local.apiserver.errors import Object
from local.apiserver.patches.fieldsets import FieldSet, Path, from_fields, leaves, to_fields

_NEVER_OWNED = {
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ),
}


@dataclass(frozen=True)
class Manager:
    """One entry of managedFields without its fields; `operation` is Apply or Update."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    def key(self) -> tuple[str, str, str, str]:
        return self.name, self.operation, self.api_version, self.subresource


@dataclass(frozen=True)
class Entry:
    manager: Manager
    fields: FieldSet
    time: str

    def to_object(self) -> Object:
        entry: Object = {
            "manager": self.manager.name,
            "operation": self.manager.operation,
            "apiVersion": self.manager.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields(self.fields),
        }
        return {**entry, "subresource": self.manager.subresource} if self.manager.subresource else entry


def read_entries(obj: Object) -> list[Entry]:
    found = []
    for entry in obj.get("metadata", {}).get("managedFields") or []:
        manager = Manager(
            entry.get("manager", ""),
            entry.get("operation", "Update"),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
        )
        found.append(
            Entry(manager, frozenset(from_fields(entry.get("fieldsV1") or {})), entry.get("time", ""))
        )
    return found


def write_entries(obj: Object, entries: list[Entry]) -> None:
    """Sets managedFields of `obj`, whose metadata the caller owns; entries without fields go."""
    kept = [e.to_object() for e in entries if e.fields]
    if kept:
        obj["metadata"]["managedFields"] = kept
    else:
        obj["metadata"].pop("managedFields", None)


def owned_fields(obj: Object, schema: Object) -> dict[Path, Any]:
    """The leaves of `obj` that can have an owner."""
    found = leaves(obj, schema)
    return {p: v for p, v in found.items() if p not in _NEVER_OWNED and p[:2] not in _NEVER_OWNED}


def track_update(old: Object | None, new: Object, schema: Object, manager: Manager, now: str) -> None:
    """Gives the fields that an update set or changed to `manager`, and takes them from the others."""
    before, after = owned_fields(old, schema) if old else {}, owned_fields(new, schema)
    changed = {p for p, value in after.items() if p not in before or before[p] != value}
    removed = before.keys() - after.keys()
    entries: list[Entry] = []
    mine: Entry | None = None
    for entry in read_entries(old) if old else []:
        if entry.manager.key() == manager.key():
            fields = frozenset((entry.fields - removed) | changed)
            mine = replace(
                entry, fields=fields, time=now if changed or fields != entry.fields else entry.time
            )
            entries.append(mine)
        else:
            entries.append(replace(entry, fields=entry.fields - removed - changed))
    if mine is None and changed:
        entries.append(Entry(manager, frozenset(changed), now))
    write_entries(new, entries)
