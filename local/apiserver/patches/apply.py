"""Server-side apply: merge a configuration, find conflicts, drop what its manager no longer applies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from local.apiserver.errors import ApiError, Object
from local.apiserver.patches.fieldsets import (
    FieldSet,
    Path,
    encode,
    is_atomic,
    item_element,
    remove,
    show_path,
    value_at,
)
from local.apiserver.patches.ownership import Entry, Manager, owned_fields, read_entries, write_entries
from local.apiserver.schemas import child, items, list_keys


def merge(live: Any, config: Any, schema: Object) -> Any:
    """`config` laid over `live` by the schema's list types; a new value."""
    if isinstance(live, dict) and isinstance(config, dict) and not is_atomic(schema):
        result = dict(live)
        for name, value in config.items():
            result[name] = merge(live[name], value, child(schema, name) or {}) if name in live else value
        return result
    if isinstance(live, list) and isinstance(config, list):
        keys = list_keys(schema)
        if keys:
            return _merge_items(live, config, keys, items(schema))
        if schema.get("x-kubernetes-list-type") == "set":
            return live + [v for v in config if v not in live]
    return config


def _merge_items(live: list[Any], config: list[Any], keys: tuple[str, ...], schema: Object) -> list[Any]:
    result, at = list(live), {item_element(v, keys, schema): i for i, v in enumerate(live)}
    for entry in config:
        element = item_element(entry, keys, schema)
        if element in at:
            result[at[element]] = merge(result[at[element]], entry, schema)
        else:
            at[element] = len(result)
            result.append(entry)
    return result


def _changes(live: Object, merged: Object, schema: Object, path: Path) -> bool:
    """Whether applying changes or adds what is at `path`; an item counts by its presence alone."""
    before, after = value_at(live, schema, path), value_at(merged, schema, path)
    return before[0] != after[0] if path[-1][0] in "kv" else before != after


def _print_manager(entry: Entry) -> str:
    text = encode(entry.manager.name)
    if entry.manager.subresource:
        text += f' with subresource "{entry.manager.subresource}"'
    if entry.manager.operation == "Update":
        text += f" using {entry.manager.api_version}" + (f" at {entry.time}" if entry.time else "")
    return text


def _refuse(found: list[tuple[Entry, Path]]) -> ApiError:
    """A 409 that names every conflict, grouped by manager when there are several."""
    if len(found) == 1:
        text = f"conflict with {_print_manager(found[0][0])}: {show_path(found[0][1])}"
    else:
        by_manager: dict[str, list[str]] = {}
        for entry, path in found:
            by_manager.setdefault(_print_manager(entry), []).append(show_path(path))
        lines = []
        for name, paths in sorted(by_manager.items()):
            lines += [f"conflicts with {name}:", *(f"- {p}" for p in paths)]
        text = "\n".join(lines)
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {_print_manager(entry)}",
            "field": show_path(path),
        }
        for entry, path in found
    ]
    plural = "" if len(found) == 1 else "s"
    message = f"Apply failed with {len(found)} conflict{plural}: {text}"
    return ApiError(409, "Conflict", message, {"causes": causes})


def apply_configuration(
    live: Object | None, config: Object, schema: Object, manager: Manager, now: str, force: bool
) -> Object:
    """The object after `manager` applied `config`, its managedFields included; ApiError 409 on conflicts."""
    fields: FieldSet = frozenset(owned_fields(config, schema))
    if live is None:
        created = {**config, "metadata": dict(config.get("metadata") or {})}
        write_entries(created, [Entry(manager, fields, now)])
        return created
    entries = read_entries(live)
    mine = next((e for e in entries if e.manager.key() == manager.key()), None)
    others = [e for e in entries if e is not mine]
    merged: Object = merge(live, config, schema)
    contested = sorted(
        ((e, p) for e in others for p in e.fields & fields if _changes(live, merged, schema, p)),
        key=lambda found: (found[0].manager.name, found[1]),
    )
    if contested and not force:
        raise _refuse(contested)
    taken = {p for _, p in contested}
    dropped = (mine.fields if mine else frozenset()) - fields
    kept_by_others: FieldSet = frozenset().union(*(e.fields for e in others)) if others else frozenset()
    for path in sorted(dropped):
        if not any(other[: len(path)] == path for other in kept_by_others | fields):
            merged = remove(merged, schema, path)
    result = {**merged, "metadata": dict(merged["metadata"])}
    after = [replace(e, fields=e.fields - taken) for e in others]
    same = mine is not None and mine.fields == fields
    time = mine.time if mine is not None and same and not taken else now
    write_entries(result, [*after, Entry(manager, fields, time)])
    return result
