"""Plain helpers on API objects: time stamps, conditions, owners, selectors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from local.client.kinds import Obj, Resource


def now() -> datetime:
    return datetime.now(UTC)


def stamp(moment: datetime | None = None) -> str:
    """RFC 3339 with whole seconds, as `metav1.Time` is written."""
    return (moment or now()).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_stamp(moment: datetime | None = None) -> str:
    """RFC 3339 with microseconds, as `metav1.MicroTime` is written."""
    return (moment or now()).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_stamp(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def age(text: str | None) -> float:
    """Seconds since a time stamp (0 when there is none)."""
    return (now() - parse_stamp(text)).total_seconds() if text else 0.0


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float | None:
    """Seconds of a Go duration such as "1h30m"; None for "Never"; raises ValueError."""
    if text == "Never":
        return None
    if not text or _DURATION.sub("", text):
        raise ValueError(f"duration {text!r} is not of the form 30s, 5m, 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def condition(obj: Obj, kind: str) -> Obj | None:
    for entry in (obj.get("status") or {}).get("conditions") or []:
        if entry["type"] == kind:
            found: Obj = entry
            return found
    return None


def is_true(obj: Obj, kind: str) -> bool:
    entry = condition(obj, kind)
    return entry is not None and entry["status"] == "True"


def with_condition(conditions: list[Obj], new: Obj) -> list[Obj]:
    """The list with `new` in place of its namesake; lastTransitionTime moves only when the status changes."""
    result, placed = [], False
    for old in conditions:
        if old["type"] != new["type"]:
            result.append(old)
            continue
        changed = old.get("status") != new["status"]
        since = stamp() if changed else old.get("lastTransitionTime", stamp())
        result.append({**new, "lastTransitionTime": since})
        placed = True
    if not placed:
        result.append({"lastTransitionTime": stamp(), **new})
    return result


def owner_reference(resource: Resource, obj: Obj, *, controller: bool = True, block: bool = True) -> Obj:
    meta = obj["metadata"]
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": controller,
        "blockOwnerDeletion": block,
    }


def controller_of(obj: Obj) -> Obj | None:
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            found: Obj = reference
            return found
    return None


def deleting(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def matches_labels(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Does a LabelSelector (matchLabels, matchExpressions) select these labels? None selects nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(matches_expression(entry, labels) for entry in selector.get("matchExpressions") or [])


def matches_expression(entry: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """One requirement {key, operator, values}; raises ValueError for an unknown operator."""
    key, operator = entry["key"], entry["operator"]
    values = [str(value) for value in entry.get("values") or []]
    have = labels.get(key)
    if operator == "In":
        return have is not None and have in values
    if operator == "NotIn":
        return have is None or have not in values
    if operator == "Exists":
        return have is not None
    if operator == "DoesNotExist":
        return have is None
    if operator in ("Gt", "Lt"):
        if have is None or not have.lstrip("-").isdigit():
            return False
        return int(have) > int(values[0]) if operator == "Gt" else int(have) < int(values[0])
    raise ValueError(
        f"operator {operator!r} of key {key!r} is not one of In, NotIn, Exists, DoesNotExist, Gt, Lt"
    )
