"""Is there room for a Neuron pod, and how far is its node? Pure functions over Karpenter's objects and
events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from trainyard.kube.cluster import Object
from trainyard.kube.quantity import parse_quantity, whole, written
from trainyard.kube.requirements import NODEPOOL, ZONE, permitted, requirements_of
from trainyard.kube.shortages import RECENT_SECONDS, lacks_capacity, time_of

NEURON = "aws.amazon.com/neuron"


@dataclass(frozen=True)
class Capacity:
    """permanent: nothing will change by waiting. passing: Karpenter may have it later. notes: for people."""

    permanent: tuple[str, ...]
    passing: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def enough(self) -> bool:
        return not self.permanent and not self.passing


def conditions(obj: Object) -> dict[str, Object]:
    return {item["type"]: item for item in (obj.get("status") or {}).get("conditions") or []}


def assess(
    nodepool: Object | None,
    nodeclass: Object | None,
    chips: int,
    events: Iterable[Object],
    now: datetime,
    *,
    name: str,
    free_chips: int = 0,
) -> Capacity:
    """Checks a NodePool and its EC2NodeClass before anything is asked of them.

    chips: what the pod wants. free_chips: chips that running nodes of the pool have free already (they cost
    no limit).
    """
    if nodepool is None:
        return Capacity(
            (f"NodePool {name} does not exist. Apply deploy/cluster, or name another in hardware.nodepool.",),
            (),
            (),
        )
    permanent, passing = readiness(nodepool, nodeclass, name)
    notes: list[str] = []
    limit, left = limits_left(nodepool).get(NEURON, (None, None))
    if limit is not None and left is not None and free_chips < chips:
        notes.append(f"{written(left)} of {written(limit)} chips left below the limit of NodePool {name}")
        if limit < chips:
            permanent.append(
                f"NodePool {name} is limited to {written(limit)} chips, {chips} are needed. Raise "
                f"spec.limits['{NEURON}']."
            )
        elif left < chips:
            passing.append(
                f"NodePool {name} has {written(left)} of {written(limit)} chips left, {chips} are needed."
            )
    lacking = [event for event in events if lacks_capacity(event, name)]
    if lacking:
        newest = max(lacking, key=time_of)
        age = (now - time_of(newest)).total_seconds()
        if age < RECENT_SECONDS:
            passing.append(f"EC2 had no capacity {max(age, 0):.0f} s ago: {newest.get('message')}")
    return Capacity(tuple(permanent), tuple(passing), tuple(notes))


def readiness(nodepool: Object, nodeclass: Object | None, name: str) -> tuple[list[str], list[str]]:
    """(permanent, passing): which conditions of a NodePool and its EC2NodeClass are not true, and why."""
    permanent: list[str] = []
    passing: list[str] = []
    for obj, label in ((nodepool, f"NodePool {name}"), (nodeclass, "its EC2NodeClass")):
        if obj is None:
            permanent.append(f"NodePool {name} refers to an EC2NodeClass that does not exist.")
            continue
        said = unready(obj)
        if said is not None:
            passing.append(f"{label} is not ready ({said}).")
    return permanent, passing


def unready(obj: Object) -> str | None:
    """The conditions that are not true, with Karpenter's reasons; None where it is ready."""
    found = conditions(obj)
    ready = found.get("Ready")
    if ready is None:
        return "Karpenter has not looked at it yet"
    if ready["status"] == "True":
        generation = obj["metadata"].get("generation")
        seen = ready.get("observedGeneration")
        if generation and seen and seen < generation:
            return f"Karpenter has looked at generation {seen}, it is at {generation}"
        return None
    return "; ".join(words(item) for item in found.values() if item["status"] != "True")


def words(condition: Object) -> str:
    """One condition for people."""
    reason = condition.get("reason") or condition["status"]
    return f"{condition['type']}: {reason} {condition.get('message') or ''}".strip()


def limits_left(nodepool: Object) -> dict[str, tuple[Decimal, Decimal]]:
    """(limit, what is left of it) of every resource that the NodePool limits."""
    spec, status = nodepool.get("spec") or {}, nodepool.get("status") or {}
    used = {**(status.get("resources") or {}), "nodes": status.get("nodes", 0)}
    out = {}
    for resource, limit in (spec.get("limits") or {}).items():
        bound = parse_quantity(limit)
        out[resource] = bound, bound - parse_quantity(used.get(resource, 0))
    return out


def zones_of(nodepool: Object, nodeclass: Object | None) -> tuple[str, ...]:
    """Zones that the NodePool's nodes can be in; empty where nothing tells."""
    requirements = requirements_of(nodepool)
    subnets = ((nodeclass or {}).get("status") or {}).get("subnets") or []
    zones = sorted({item["zone"] for item in subnets if item.get("zone")})
    if not zones:
        zones = sorted(
            {
                zone
                for item in requirements
                if item["key"] == ZONE and item["operator"] == "In"
                for zone in item.get("values") or []
            }
        )
    return permitted(requirements, ZONE, zones)


def free_chips(nodes: Iterable[Object], pods: Iterable[Object], nodepool: str) -> int:
    """The most chips that one node of the pool has free; one that is going away has none to give."""
    used: dict[str, int] = {}
    for pod in pods:
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        host = (pod.get("spec") or {}).get("nodeName")
        if host:
            used[host] = used.get(host, 0) + pod_chips(pod)
    return max(
        (
            allocatable_chips(node) - used.get(node["metadata"]["name"], 0)
            for node in nodes
            if (node["metadata"].get("labels") or {}).get(NODEPOOL) == nodepool
            and not node["metadata"].get("deletionTimestamp")
            and not (node.get("spec") or {}).get("unschedulable")
        ),
        default=0,
    )


def allocatable_chips(node: Object | None) -> int:
    """What the device plugin offers on a node."""
    return whole((((node or {}).get("status") or {}).get("allocatable") or {}).get(NEURON))


def pod_chips(pod: Object) -> int:
    """Neuron chips that a pod holds."""

    def of(containers: Iterable[Object]) -> list[int]:
        return [
            whole(((item.get("resources") or {}).get("limits") or {}).get(NEURON))
            for item in containers or []
        ]

    spec = pod.get("spec") or {}
    return max(sum(of(spec.get("containers") or [])), *of(spec.get("initContainers") or []), 0)
