"""The arithmetic of a rolling update. Pure: replica counts in, replica counts out."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from local.client.kinds import Obj

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def template_hash(template: Obj, collisions: int = 0) -> str:
    """A ten-letter hash of a pod template in Kubernetes' safe alphabet (no vowels, so no words)."""
    text = json.dumps([bare_template(template), collisions], sort_keys=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    letters = []
    for _ in range(10):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


def bare_template(template: Obj) -> Obj:
    """The template without the pod-template-hash label, for comparison."""
    meta = dict(template.get("metadata") or {})
    meta["labels"] = {
        key: value for key, value in (meta.get("labels") or {}).items() if key != "pod-template-hash"
    }
    meta.pop("creationTimestamp", None)
    return {**template, "metadata": meta}


def bounds(spec: Obj) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as pods: surge rounds up, unavailable down; both 0: one unavailable."""
    replicas = spec.get("replicas", 1)
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def _share(value: Any, replicas: int, *, up: bool) -> int:
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * replicas / 100
        return math.ceil(share) if up else math.floor(share)
    return int(value)


@dataclass(frozen=True)
class Set:
    """One ReplicaSet as the arithmetic sees it."""

    name: str
    replicas: int
    available: int


def grow(wanted: int, surge: int, new: Set, others: list[Set]) -> int:
    """New replica count of the new set: up as far as the surge allows; down at once when too large."""
    if new.replicas >= wanted:
        return wanted
    room = wanted + surge - (new.replicas + sum(each.replicas for each in others))
    return new.replicas + max(0, min(room, wanted - new.replicas))


def shrink(wanted: int, unavailable: int, new: Set, olds: list[Set]) -> dict[str, int]:
    """Replica counts of the old sets (oldest first): unhealthy pods first, then what availability allows."""
    counts = {each.name: each.replicas for each in olds}
    total = new.replicas + sum(counts.values())
    minimum = wanted - unavailable
    allowance = total - minimum - (new.replicas - new.available)
    if allowance <= 0:
        return counts
    cleaned = 0
    for each in olds:
        unhealthy = min(each.replicas - each.available, allowance - cleaned)
        if unhealthy > 0:
            counts[each.name] -= unhealthy
            cleaned += unhealthy
    healthy = new.available + sum(min(each.available, counts[each.name]) for each in olds)
    spare = healthy - minimum
    for each in olds:
        if spare <= 0:
            break
        step = min(counts[each.name], spare)
        counts[each.name] -= step
        spare -= step
    return counts
