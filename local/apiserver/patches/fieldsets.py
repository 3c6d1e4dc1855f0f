"""Sets of fields as managedFields hold them (FieldsV1).

A path is a tuple of elements: `f:name` a field, `k:{"name":"x"}` an item of a list by its keys, `v:"x"` an
item of a set. A set of fields is a frozenset of paths.
"""

from __future__ import annotations

import json
from typing import Any

from local.apiserver.errors import Object
from local.apiserver.schemas import child, items, list_keys

Path = tuple[str, ...]
FieldSet = frozenset[Path]

KEY_DEFAULTS = {"protocol": "TCP"}
"""Keys that an item may leave out, with what stands for them (the default markers of k8s.io/api)."""


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def encode(value: Any) -> str:
    return _ENCODER.encode(value)


def item_element(item: Any, keys: tuple[str, ...], schema: Object) -> str:
    """The path element of an item of a list that merges by `keys`."""
    found: Object = {}
    for key in keys:
        value = item.get(key) if isinstance(item, dict) else None
        if value is None:
            value = (schema.get("properties", {}).get(key) or {}).get("default", KEY_DEFAULTS.get(key))
        if value is not None:
            found[key] = value
    return "k:" + encode(found)


def is_atomic(schema: Object) -> bool:
    return schema.get("x-kubernetes-map-type") == "atomic"


ITEM = object()
"""Stands for an item of a list among leaves: that it is there, whatever it holds."""


def leaves(value: Any, schema: Object) -> dict[Path, Any]:
    """All leaves of `value` by path, with ITEM for each item of a list that merges."""
    found: dict[Path, Any] = {}
    _collect(value, schema, (), found)
    return found


def _collect(value: Any, schema: Object, path: Path, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and not is_atomic(schema) and (value or not path):
        for name, entry in value.items():
            _collect(entry, child(schema, name) or {}, (*path, f"f:{name}"), found)
    elif isinstance(value, list) and value and list_keys(schema):
        keys, inner = list_keys(schema), items(schema)
        for entry in value:
            below = (*path, item_element(entry, keys, inner))
            found[below] = ITEM
            _collect(entry, inner, below, found)
    elif isinstance(value, list) and value and schema.get("x-kubernetes-list-type") == "set":
        for entry in value:
            found[(*path, "v:" + encode(entry))] = ITEM
    else:
        found[path] = value


def value_at(value: Any, schema: Object, path: Path) -> tuple[bool, Any]:
    """Whether there is something at `path`, and what."""
    for element in path:
        kind, text = element[0], element[2:]
        if kind == "f":
            if not isinstance(value, dict) or text not in value:
                return False, None
            value, schema = value[text], child(schema, text) or {}
        elif not isinstance(value, list):
            return False, None
        elif kind == "v":
            wanted = json.loads(text)
            return wanted in value, wanted if wanted in value else None
        else:
            keys, inner = list_keys(schema), items(schema)
            found = [v for v in value if item_element(v, keys, inner) == element]
            if not found:
                return False, None
            value, schema = found[0], inner
    return True, value


def remove(value: Any, schema: Object, path: Path) -> Any:
    """A copy of `value` (shared where unchanged) without what is at `path`."""
    element, rest = path[0], path[1:]
    text = element[2:]
    if element[0] == "f":
        if not isinstance(value, dict) or text not in value:
            return value
        if not rest:
            return {k: v for k, v in value.items() if k != text}
        return {**value, text: remove(value[text], child(schema, text) or {}, rest)}
    if not isinstance(value, list):
        return value
    if element[0] == "v":
        return [v for v in value if v != json.loads(text)]
    keys, inner = list_keys(schema), items(schema)
    result: list[Any] = []
    for entry in value:
        if item_element(entry, keys, inner) != element:
            result.append(entry)
        elif rest:
            result.append(remove(entry, inner, rest))
    return result


def to_fields(paths: FieldSet | set[Path]) -> Object:
    """FieldsV1 of a set of paths."""
    root: Object = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}

    def tidy(node: Object) -> Object:
        if set(node) == {"."}:
            return {}
        return {k: ({} if k == "." else tidy(v)) for k, v in node.items()}

    return {k: tidy(v) for k, v in root.items() if k != "."}


def from_fields(fields: Object, path: Path = ()) -> set[Path]:
    """The paths in a FieldsV1; the inverse of `to_fields`."""
    found: set[Path] = set()
    for element, below in fields.items():
        if element == ".":
            found.add(path)
        elif below:
            found |= from_fields(below, (*path, element))
        else:
            found.add((*path, element))
    return found


def show_path(path: Path) -> str:
    """A path as conflicts print it: `.spec.containers[name="a"].image`."""
    text = ""
    for element in path:
        if element[0] == "f":
            text += "." + element[2:]
        elif element[0] == "v":
            text += f"[={element[2:]}]"
        else:
            keys = json.loads(element[2:])
            text += "[" + ",".join(f"{k}={encode(v)}" for k, v in sorted(keys.items())) + "]"
    return text
