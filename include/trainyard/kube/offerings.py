"""Which way to buy a node is open now: an order over instance types, zones and capacity types. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from trainyard.errors import Problem, Refused
from trainyard.kube.capacity import NEURON, free_chips, limits_left, zones_of
from trainyard.kube.cluster import Object
from trainyard.kube.quantity import written
from trainyard.kube.requirements import (
    CAPACITY_TYPE,
    CAPACITY_TYPES,
    INSTANCE_TYPE,
    ZONE,
    labels_of,
    permitted,
    refusal,
    requirements_of,
)
from trainyard.kube.reservations import Reservation, reservations_of
from trainyard.kube.shortages import Shortage, recent_shortages
from trainyard.neuron.instances import INSTANCES


@dataclass(frozen=True)
class Offering:
    """A way to buy a node. None: any that the NodePool permits.

    capacity_type: reserved, spot or on-demand.
    """

    instance_type: str
    zone: str | None = None
    capacity_type: str | None = None

    def __post_init__(self) -> None:
        if self.capacity_type is not None and self.capacity_type not in CAPACITY_TYPES:
            raise Refused(
                Problem(
                    "capacity_type",
                    self.capacity_type,
                    "not a capacity type of Karpenter",
                    f"Use one of {', '.join(CAPACITY_TYPES)}.",
                )
            )

    def __str__(self) -> str:
        return f"{self.instance_type}, {self.zone or 'any zone'}, {self.capacity_type or 'any capacity type'}"

    @property
    def node_selector(self) -> dict[str, str]:
        """What a pod selects to get this and nothing else."""
        asked = {INSTANCE_TYPE: self.instance_type, ZONE: self.zone, CAPACITY_TYPE: self.capacity_type}
        return {key: value for key, value in asked.items() if value is not None}


@dataclass(frozen=True)
class Supply:
    """What the cluster knows of one NodePool at one moment."""

    nodepool: Object
    nodeclass: Object | None
    events: Sequence[Object]
    nodes: Sequence[Object]
    pods: Sequence[Object]
    now: datetime


@dataclass(frozen=True)
class Fallen:
    """An offering that is not open. permanent: waiting will not open it."""

    offering: Offering
    reason: str
    permanent: bool


@dataclass(frozen=True)
class Chosen:
    """An offering that is open, and through which of its zones, capacity types and reservations.

    node: runs already and has the chips free; None where one has to be bought.
    """

    offering: Offering
    reason: str
    zones: tuple[str, ...]
    capacity_types: tuple[str, ...]
    reservation: str | None
    node: str | None
    fallen: tuple[Fallen, ...]

    def data(self) -> dict[str, Any]:
        """As XCom: JSON."""
        return {
            **asdict(self.offering),
            "node_selector": self.offering.node_selector,
            "zones": list(self.zones),
            "capacity_types": list(self.capacity_types),
            "reservation": self.reservation,
            "node": self.node,
            "reason": self.reason,
            "fallen": [{"offering": asdict(each.offering), "reason": each.reason} for each in self.fallen],
        }


def choose(
    order: Iterable[Offering], supply: Supply, chips: int, work_seconds: float = 0.0
) -> Chosen | tuple[Fallen, ...]:
    """The first offering of the order that is open; the reasons of all where none is.

    chips: what the pod asks for. work_seconds: how long the node is needed, counted from now.
    """
    until = supply.now + timedelta(seconds=work_seconds)
    fallen: list[Fallen] = []
    for offering in order:
        found = _look(offering, supply, chips, until)
        if isinstance(found, Fallen):
            fallen.append(found)
            continue
        return Chosen(offering, *found, tuple(fallen))
    return tuple(fallen)


_Found = tuple[str, tuple[str, ...], tuple[str, ...], str | None, str | None]


def _look(offering: Offering, supply: Supply, chips: int, until: datetime) -> _Found | Fallen:
    requirements = requirements_of(supply.nodepool)
    no = refusal(requirements, labels_of(offering.instance_type))
    if no is not None:
        return Fallen(offering, no, True)
    known = INSTANCES.get(offering.instance_type)
    if known is not None and known.chips < chips:
        return Fallen(offering, f"it has {known.chips} chip(s), {chips} are needed", True)
    paid = permitted(requirements, CAPACITY_TYPE, CAPACITY_TYPES)
    if offering.capacity_type is not None and offering.capacity_type not in paid:
        return Fallen(offering, f"the NodePool permits {', '.join(paid) or 'no capacity type'} only", True)
    zones = zones_of(supply.nodepool, supply.nodeclass)
    if offering.zone is not None and zones and offering.zone not in zones:
        return Fallen(offering, f"the NodePool reaches {', '.join(zones)} only", True)
    wanted_zones = (offering.zone,) if offering.zone else zones
    wanted_types = (offering.capacity_type,) if offering.capacity_type else paid
    reservations = [
        each for each in reservations_of(supply.nodeclass) if each.instance_type == offering.instance_type
    ]
    running = _running(offering, supply, chips, until, reservations)
    if running is not None:
        return running
    over = _over_limit(offering, supply.nodepool, chips)
    if over is not None:
        return over
    return _open(offering, wanted_zones, wanted_types, reservations, supply, until)


def _running(
    offering: Offering, supply: Supply, chips: int, until: datetime, reservations: Sequence[Reservation]
) -> _Found | None:
    """A node that runs already and has the chips free: nothing needs to be bought."""
    pool = supply.nodepool["metadata"]["name"]
    for node in supply.nodes:
        labels = node["metadata"].get("labels") or {}
        if any(labels.get(key) != value for key, value in offering.node_selector.items()):
            continue
        held = labels.get("karpenter.k8s.aws/capacity-reservation-id")
        if any(each.id == held and each.lacks(until) for each in reservations):
            continue
        free = free_chips([node], supply.pods, pool)
        if free >= chips:
            name = node["metadata"]["name"]
            words = f"node {name} runs already and has {free} chips free, {chips} are needed"
            return words, _one(labels.get(ZONE)), _one(labels.get(CAPACITY_TYPE)), held, name
    return None


def _over_limit(offering: Offering, nodepool: Object, chips: int) -> Fallen | None:
    """Karpenter counts the whole node against the limits, whatever of it a pod asks for."""
    known = INSTANCES.get(offering.instance_type)
    ask: Mapping[str, int] = {NEURON: chips, "nodes": 1}
    if known is not None:
        ask = {NEURON: known.chips, "nodes": 1, "cpu": known.vcpus, "memory": known.memory_gib * 2**30}
    for resource, (limit, left) in limits_left(nodepool).items():
        need = ask.get(resource, 0)
        if limit < need:
            words = f"a node takes {need} {resource}, the NodePool's limit is {written(limit)}"
            return Fallen(offering, f"{words}: raise spec.limits['{resource}']", True)
        if left < need:
            words = (
                f"a node takes {need} {resource}, {written(left)} of the limit of {written(limit)} are left"
            )
            return Fallen(offering, words, False)
    return None


def _open(
    offering: Offering,
    zones: Sequence[str],
    types: Sequence[str],
    reservations: Sequence[Reservation],
    supply: Supply,
    until: datetime,
) -> _Found | Fallen:
    """Those pairs of zone and capacity type that nothing speaks against."""
    shortages = recent_shortages(supply.events, supply.nodepool["metadata"]["name"], supply.now)
    pairs: list[tuple[str | None, str, str | None]] = []
    against: dict[str, None] = {}
    for paid in types:
        for zone in zones or (None,):
            held = None
            if paid == "reserved":
                held, words = _reservation(zone, reservations, until)
                if held is None:
                    against[words] = None
                    continue
            lack = _hit(shortages, offering.instance_type, zone, paid)
            if lack is None:
                pairs.append((zone, paid, held))
            else:
                against[f"EC2 had no capacity {lack.age_seconds:.0f} s ago ({lack.words})"] = None
    if not pairs:
        return Fallen(offering, "; ".join(against) or "the NodePool permits no capacity type", not against)
    first = next((held for _, _, held in pairs if held), None)
    open_zones = tuple(dict.fromkeys(zone for zone, _, _ in pairs if zone))
    open_types = tuple(dict.fromkeys(paid for _, paid, _ in pairs))
    places = f" in {', '.join(open_zones)}" if open_zones else ""
    return f"open as {', '.join(open_types)}{places}", open_zones, open_types, first, None


def _reservation(
    zone: str | None, reservations: Sequence[Reservation], until: datetime
) -> tuple[str | None, str]:
    """The reservation to take (the longest lasting one), or None and why."""
    here = [each for each in reservations if zone is None or each.zone == zone]
    for each in here:
        if each.lacks(until) is None:
            return each.id, ""
    words = [str(each.lacks(until)) for each in here]
    where = f" in {zone}" if zone else ""
    return None, "; ".join(words) or f"the EC2NodeClass has no reservation for it{where}"


def _hit(shortages: Iterable[Shortage], kind: str, zone: str | None, paid: str) -> Shortage | None:
    return next((each for each in shortages if each.hits(kind, zone, paid)), None)


def _one(value: str | None) -> tuple[str, ...]:
    return (value,) if value else ()


def offering_from(value: Offering | Mapping[str, Any] | str) -> Offering:
    """An offering from a dict (an XCom, a trigger's argument) or from an instance type alone."""
    if isinstance(value, Offering):
        return value
    if isinstance(value, str):
        return Offering(value)
    return Offering(value["instance_type"], value.get("zone"), value.get("capacity_type"))
