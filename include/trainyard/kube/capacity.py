"""Is there room for a Neuron pod, and how far is its node? Pure functions over Karpenter's objects and
events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainyard.kube.cluster import Object

NEURON = "aws.amazon.com/neuron"
# Karpenter itself tries an offering again after three minutes.
RECENT_SECONDS = 180.0
STAGES = ("Launched", "Registered", "Initialized")


@dataclass(frozen=True)
class Capacity:
    """permanent: nothing will change by waiting. passing: Karpenter may have it later. notes: for people."""

    permanent: tuple[str, ...]
    passing: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def enough(self) -> bool:
        return not self.permanent and not self.passing


@dataclass(frozen=True)
class Progress:
    """How far a NodeClaim is. stage: the last of STAGES that is true, or Requested."""

    stage: str
    ready: bool
    waiting_for: str
    failure: str | None = None


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
    permanent: list[str] = []
    passing: list[str] = []
    notes: list[str] = []
    for obj, label in ((nodepool, f"NodePool {name}"), (nodeclass, "its EC2NodeClass")):
        if obj is None:
            permanent.append(f"NodePool {name} refers to an EC2NodeClass that does not exist.")
            continue
        ready = conditions(obj).get("Ready")
        if ready is None or ready["status"] != "True":
            bad = [
                f"{kind}: {item.get('reason') or item['status']} {item.get('message') or ''}".strip()
                for kind, item in conditions(obj).items()
                if item["status"] != "True"
            ]
            passing.append(
                f"{label} is not ready ({'; '.join(bad) or 'Karpenter has not looked at it yet'})."
            )
    limit = ((nodepool.get("spec") or {}).get("limits") or {}).get(NEURON)
    used = int(((nodepool.get("status") or {}).get("resources") or {}).get(NEURON, 0))
    if limit is not None and free_chips < chips:
        left = int(limit) - used
        notes.append(f"{left} of {limit} chips left below the limit of NodePool {name}")
        if int(limit) < chips:
            permanent.append(
                f"NodePool {name} is limited to {limit} chips, {chips} are needed. Raise "
                f"spec.limits['{NEURON}']."
            )
        elif left < chips:
            passing.append(f"NodePool {name} has {left} of {limit} chips left, {chips} are needed.")
    lacking = [event for event in events if lacks_capacity(event, name)]
    if lacking:
        newest = max(lacking, key=time_of)
        age = (now - time_of(newest)).total_seconds()
        if age < RECENT_SECONDS:
            passing.append(f"EC2 had no capacity {max(age, 0):.0f} s ago: {newest.get('message')}")
    return Capacity(tuple(permanent), tuple(passing), tuple(notes))


def lacks_capacity(event: Object, nodepool: str) -> bool:
    """Whether EC2 had no instance for a NodeClaim of this pool: they are named `<pool>-<random>`."""
    name = str((event.get("involvedObject") or {}).get("name") or "")
    return event.get("reason") == "InsufficientCapacityError" and name.rpartition("-")[0] == nodepool


def progress(claim: Object | None, node: Object | None, chips: int) -> Progress:
    """How far a NodeClaim is on its way to a node with allocatable Neuron chips."""
    if claim is None:
        return Progress("Requested", False, "Karpenter to make a NodeClaim")
    found = conditions(claim)
    stage = "Requested"
    for kind in STAGES:
        item = found.get(kind)
        if item is None or item["status"] != "True":
            reason = (
                f" ({item.get('reason')}: {item.get('message') or ''})" if item and item.get("reason") else ""
            )
            return Progress(stage, False, _WAITS[kind] + reason)
        stage = kind
    allocatable = int(((node or {}).get("status") or {}).get("allocatable", {}).get(NEURON, 0))
    if allocatable < chips:
        return Progress(stage, False, f"the device plugin to offer {chips} chips (offered: {allocatable})")
    return Progress(stage, True, "")


_WAITS = {
    "Launched": "EC2 to launch the instance",
    "Registered": "the node to join the cluster",
    "Initialized": "the node's Neuron devices to be offered",
}


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
            int((node.get("status") or {}).get("allocatable", {}).get(NEURON, 0))
            - used.get(node["metadata"]["name"], 0)
            for node in nodes
            if (node["metadata"].get("labels") or {}).get("karpenter.sh/nodepool") == nodepool
            and not node["metadata"].get("deletionTimestamp")
            and not (node.get("spec") or {}).get("unschedulable")
        ),
        default=0,
    )


def pod_chips(pod: Object) -> int:
    """Neuron chips that a pod holds."""

    def of(containers: Iterable[Object]) -> list[int]:
        return [
            int(((item.get("resources") or {}).get("limits") or {}).get(NEURON, 0))
            for item in containers or []
        ]

    spec = pod.get("spec") or {}
    return max(sum(of(spec.get("containers") or [])), *of(spec.get("initContainers") or []), 0)


def time_of(event: Object) -> datetime:
    text: Any = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
