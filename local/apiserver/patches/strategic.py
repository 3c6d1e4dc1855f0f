"""Strategic merge patch: like a merge patch, but lists with a merge key merge item by item.

Directives: `$patch: replace|delete|merge`, `$deleteFromPrimitiveList/F`, `$setElementOrder/F`, `$retainKeys`.
"""

from __future__ import annotations

from typing import Any

from local.apiserver.errors import Object, bad_request
from local.apiserver.schemas import child, items

_DELETE, _ORDER = "$deleteFromPrimitiveList/", "$setElementOrder/"


def strategic_merge(target: Any, patch: Object, schema: Object) -> Object:
    """A new object; `schema` says how lists merge. ApiError 400 for items without their key."""
    directive = patch.get("$patch")
    if directive == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    if directive == "delete":
        return {}
    result: Object = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        result = {k: v for k, v in result.items() if k in retained}
    for name, value in patch.items():
        if name in ("$patch", "$retainKeys"):
            continue
        if name.startswith(_DELETE):
            field = name.removeprefix(_DELETE)
            result[field] = [v for v in result.get(field) or [] if v not in value]
        elif name.startswith(_ORDER):
            continue
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = _field(result.get(name), value, child(schema, name) or {})
    for name, order in patch.items():
        if name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            key = (child(schema, field) or {}).get("x-kubernetes-patch-merge-key")
            if isinstance(result.get(field), list):
                before = target.get(field) if isinstance(target, dict) else None
                result[field] = _arrange(result[field], order, before or [], key)
    return result


def _field(old: Any, new: Any, schema: Object) -> Any:
    if isinstance(new, dict):
        return strategic_merge(old, new, schema)
    if isinstance(new, list):
        key = schema.get("x-kubernetes-patch-merge-key")
        if key:
            return _merge_list(old if isinstance(old, list) else [], new, key, items(schema))
        if schema.get("x-kubernetes-list-type") == "set" and isinstance(old, list):
            return old + [v for v in new if v not in old]
    return new


def _merge_list(old: list[Any], new: list[Any], key: str, schema: Object) -> list[Any]:
    if any(isinstance(v, dict) and v.get("$patch") == "replace" and len(v) == 1 for v in new):
        return [v for v in new if "$patch" not in v]
    result = list(old)
    for entry in new:
        if not isinstance(entry, dict) or key not in entry:
            raise bad_request(f"map: {entry} does not contain declared merge key: {key}")
        at = next((i for i, v in enumerate(result) if v.get(key) == entry[key]), None)
        if entry.get("$patch") == "delete":
            if at is not None:
                result = [v for v in result if v.get(key) != entry[key]]
        elif at is None:
            result.append(strategic_merge({}, entry, schema))
        else:
            result[at] = strategic_merge(result[at], entry, schema)
    return _arrange(result, new, old, key)


def _arrange(values: list[Any], order: list[Any], before: list[Any], key: str | None) -> list[Any]:
    """`values` as a real server orders them: those that `order` names in its order, and each of the others
    before the first of them that it preceded (strategicpatch's mergeSortedSlice).
    """

    def identity(value: Any) -> Any:
        return value.get(key) if key and isinstance(value, dict) else value

    wanted, original = [identity(v) for v in order], [identity(v) for v in before]
    named = [v for v in values if identity(v) in wanted]
    named.sort(key=lambda v: wanted.index(identity(v)))
    others = [v for v in values if identity(v) not in wanted]
    result: list[Any] = []
    while named and others:
        other, one = identity(others[0]), identity(named[0])
        first = other in original and one in original and original.index(other) < original.index(one)
        result.append((others if first else named).pop(0))
    return result + named + others
