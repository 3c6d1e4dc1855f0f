"""What EC2 said when it had no instance: Karpenter's events, read as far as their words name an offering.

Karpenter deletes a NodeClaim that found no capacity, so the event is all that is left. Its message is EC2's
own, cut after 300 characters; one that names nothing is taken to mean everything the NodePool offers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainyard.kube.cluster import Object
from trainyard.kube.requirements import CAPACITY_TYPES

# Karpenter itself tries an offering again after three minutes.
RECENT_SECONDS = 180.0
REASON = "InsufficientCapacityError"
_ERROR = re.compile(r"\b(?P<code>[A-Z][A-Za-z]{8,}): (?P<text>.*?)(?=; [A-Z][A-Za-z]{8,}: |$)", re.S)
_PLACES = (
    re.compile(
        r"sufficient (?P<type>\S+) capacity in the Availability Zone you requested \((?P<zone>[^)]+)\)"
    ),
    re.compile(r"requested instance type \((?P<type>[^)]+)\).*?Availability Zone \((?P<zone>[^)]+)\)"),
)
_PAID_BY = {
    "InsufficientInstanceCapacity": ("spot", "on-demand"),  # a reservation never lacks what it holds
    "MaxSpotInstanceCountExceeded": ("spot",),
    "VcpuLimitExceeded": ("on-demand",),
    "ReservationCapacityExceeded": ("reserved",),
}


@dataclass(frozen=True)
class Shortage:
    """One "no capacity". None: the message names none, so it may be any."""

    instance_type: str | None
    zone: str | None
    capacity_types: tuple[str, ...]
    age_seconds: float
    words: str

    def hits(self, instance_type: str, zone: str | None, capacity_type: str) -> bool:
        """zone None: nothing tells which zones there are, so a shortage in any of them hits."""
        if self.instance_type is not None and self.instance_type != instance_type:
            return False
        if self.zone is not None and zone is not None and self.zone != zone:
            return False
        return capacity_type in self.capacity_types


def recent_shortages(events: Iterable[Object], nodepool: str, now: datetime) -> list[Shortage]:
    """Those of this NodePool that Karpenter has not tried again yet, newest first."""
    found = []
    for event in events:
        age = max((now - time_of(event)).total_seconds(), 0.0)
        if lacks_capacity(event, nodepool) and age < RECENT_SECONDS:
            found += parse_message(str(event.get("message") or ""), age)
    return sorted(found, key=lambda each: each.age_seconds)


def parse_message(message: str, age: float) -> list[Shortage]:
    """One message -> one shortage for every error that EC2's fleet request came back with."""
    out = []
    for error in _ERROR.finditer(message):
        paid = _PAID_BY.get(error["code"], CAPACITY_TYPES)
        if "no Spot capacity" in error["text"]:
            paid = ("spot",)
        place = next((hit for form in _PLACES if (hit := form.search(error["text"]))), None)
        kind, zone = (place["type"], place["zone"]) if place else (None, None)
        out.append(Shortage(kind, zone, paid, age, f"{error['code']}: {_first(error['text'])}"))
    return out or [Shortage(None, None, CAPACITY_TYPES, age, message or "no reason was given")]


def lacks_capacity(event: Object, nodepool: str) -> bool:
    """Whether EC2 had no instance for a NodeClaim of this pool: they are named `<pool>-<random>`."""
    name = str((event.get("involvedObject") or {}).get("name") or "")
    return event.get("reason") == REASON and name.rpartition("-")[0] == nodepool


def time_of(event: Object) -> datetime:
    text: Any = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))


def _first(text: str) -> str:
    """The first sentence: what follows is advice that names other zones."""
    return text.partition(". ")[0]
