"""How far a NodeClaim is on its way to a node with Neuron devices, and what it waits for. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from trainyard.kube.capacity import allocatable_chips, conditions
from trainyard.kube.cluster import Object
from trainyard.kube.shortages import REASON

STAGES = ("Launched", "Registered", "Initialized")
READY = "Ready"
_WAITS = {
    "Launched": "EC2 to launch the instance",
    "Registered": "the node to join the cluster",
    "Initialized": "the node's Neuron devices to be offered",
    READY: "Karpenter to call it ready",
}
# Karpenter's reasons of `Initialized=Unknown`, in words that say where to look.
_REASONS = {
    "NodeNotFound": "its Node object is gone or not there yet",
    "NodeNotReady": "the kubelet or the network plugin is not ready",
    "StartupTaintsExist": "a startup taint is still on the node: what removes it has not run",
    "KnownEphemeralTaintsExist": "the node still carries a taint that Kubernetes removes by itself",
    "ResourceNotRegistered": "the node does not offer a resource that the claim asks for: is the Neuron "
    "device plugin running on it",
    "UnhealthyDependents": "an earlier condition is false",
}
_NOMINATED = re.compile(r"nodeclaim/([a-z0-9.-]+)")


@dataclass(frozen=True)
class Progress:
    """How far a NodeClaim is. stage: the last of STAGES that is true, or Requested."""

    stage: str
    ready: bool
    waiting_for: str


def progress(claim: Object | None, node: Object | None, chips: int, until: str = "Initialized") -> Progress:
    """ready: the claim has come as far as `until` (one of STAGES, or Ready), and from Initialized on its node
    has `chips` allocatable."""
    if claim is None:
        return Progress("Requested", False, "Karpenter to make a NodeClaim")
    found = conditions(claim)
    stage = "Requested"
    for kind in (*STAGES, READY):
        item = found.get(kind)
        if item is None or item["status"] != "True":
            return Progress(stage, False, _WAITS[kind] + _why(item))
        if kind != READY:
            stage = kind
        if kind == until:
            break
    if until in ("Initialized", READY) and (offered := allocatable_chips(node)) < chips:
        return Progress(stage, False, f"the device plugin to offer {chips} chips (offered: {offered})")
    return Progress(stage, True, "")


def _why(condition: Object | None) -> str:
    reason = (condition or {}).get("reason")
    if condition is None or not reason:
        return ""
    meaning = f"; {_REASONS[reason]}" if reason in _REASONS else ""
    return f" ({reason}: {condition.get('message') or ''}{meaning})"


def newest(claims: Iterable[Object]) -> Object | None:
    """The claim that was made last; one that is going away only where there is no other."""
    return max(
        claims,
        key=lambda claim: (
            "deletionTimestamp" not in claim["metadata"],
            claim["metadata"].get("creationTimestamp") or "",
        ),
        default=None,
    )


def nominated(events: Iterable[Object]) -> str | None:
    """The NodeClaim that Karpenter last nominated for a pod, from the pod's events (oldest first)."""
    found = None
    for event in events:
        if event.get("reason") == "Nominated" and (hit := _NOMINATED.search(str(event.get("message")))):
            found = hit[1]
    return found


def refused(events: Iterable[Object], claim: str) -> str | None:
    """EC2's words when it had no capacity for this claim. Karpenter has deleted the claim since."""
    return next(
        (
            str(event.get("message"))
            for event in events
            if event.get("reason") == REASON and (event.get("involvedObject") or {}).get("name") == claim
        ),
        None,
    )
