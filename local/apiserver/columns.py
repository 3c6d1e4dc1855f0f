"""The columns that `kubectl get` prints for built-in kinds, and what stands in them."""

from __future__ import annotations

from dataclasses import dataclass

from local.apiserver.cells import (
    Cell,
    age,
    at,
    containers,
    endpoints,
    event_about,
    event_seen,
    external,
    gates,
    job_completions,
    job_duration,
    job_status,
    node_address,
    node_roles,
    node_status,
    number,
    pod_ready,
    pod_restarts,
    pod_status,
    ready_replicas,
    role_ref,
    selector,
    service_ports,
    slice_ports,
)


@dataclass(frozen=True)
class Column:
    name: str
    cell: Cell
    type: str = "string"
    priority: int = 0


_AGE = Column("Age", age)
_TEMPLATE = "spec.template.spec"
_WIDE = (
    Column("Containers", containers(_TEMPLATE, "name"), priority=1),
    Column("Images", containers(_TEMPLATE, "image"), priority=1),
    Column("Selector", selector, priority=1),
)

COLUMNS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "configmaps"): (
        Column("Data", lambda o: len(o.get("data") or {}) + len(o.get("binaryData") or {})),
        _AGE,
    ),
    ("", "namespaces"): (Column("Status", at("status.phase")), _AGE),
    ("", "nodes"): (
        Column("Status", node_status),
        Column("Roles", node_roles),
        _AGE,
        Column("Version", at("status.nodeInfo.kubeletVersion", "")),
        Column("Internal-IP", node_address("InternalIP"), priority=1),
        Column("External-IP", node_address("ExternalIP"), priority=1),
        Column("OS-Image", at("status.nodeInfo.osImage", "<unknown>"), priority=1),
        Column("Kernel-Version", at("status.nodeInfo.kernelVersion", "<unknown>"), priority=1),
        Column("Container-Runtime", at("status.nodeInfo.containerRuntimeVersion", "<unknown>"), priority=1),
    ),
    ("", "pods"): (
        Column("Ready", pod_ready),
        Column("Status", pod_status),
        Column("Restarts", pod_restarts),
        _AGE,
        Column("IP", at("status.podIP"), priority=1),
        Column("Node", at("spec.nodeName"), priority=1),
        Column("Nominated Node", at("status.nominatedNodeName"), priority=1),
        Column("Readiness Gates", gates, priority=1),
    ),
    ("", "secrets"): (Column("Type", at("type")), Column("Data", lambda o: len(o.get("data") or {})), _AGE),
    ("", "serviceaccounts"): (Column("Secrets", lambda o: len(o.get("secrets") or ())), _AGE),
    ("", "services"): (
        Column("Type", at("spec.type")),
        Column("Cluster-IP", at("spec.clusterIP")),
        Column("External-IP", external),
        Column("Port(s)", service_ports),
        _AGE,
        Column("Selector", selector, priority=1),
    ),
    ("", "events"): (
        Column("Last Seen", event_seen),
        Column("Type", at("type", "")),
        Column("Reason", at("reason", "")),
        Column("Object", event_about),
        Column("Message", lambda e: (e.get("message") or e.get("note") or "").strip()),
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"): (
        Column("Created At", lambda o: o["metadata"].get("creationTimestamp", "")),
    ),
    ("apps", "daemonsets"): (
        Column("Desired", number("status.desiredNumberScheduled"), "integer"),
        Column("Current", number("status.currentNumberScheduled"), "integer"),
        Column("Ready", number("status.numberReady"), "integer"),
        Column("Up-to-date", number("status.updatedNumberScheduled"), "integer"),
        Column("Available", number("status.numberAvailable"), "integer"),
        _AGE,
        *_WIDE,
    ),
    ("apps", "deployments"): (
        Column("Ready", ready_replicas),
        Column("Up-to-date", number("status.updatedReplicas"), "integer"),
        Column("Available", number("status.availableReplicas"), "integer"),
        _AGE,
        *_WIDE,
    ),
    ("apps", "replicasets"): (
        Column("Desired", number("spec.replicas"), "integer"),
        Column("Current", number("status.replicas"), "integer"),
        Column("Ready", number("status.readyReplicas"), "integer"),
        _AGE,
        *_WIDE,
    ),
    ("batch", "jobs"): (
        Column("Status", job_status),
        Column("Completions", job_completions),
        Column("Duration", job_duration),
        _AGE,
        *_WIDE,
    ),
    ("coordination.k8s.io", "leases"): (Column("Holder", at("spec.holderIdentity", "")), _AGE),
    ("discovery.k8s.io", "endpointslices"): (
        Column("AddressType", at("addressType", "")),
        Column("Ports", slice_ports),
        Column("Endpoints", endpoints),
        _AGE,
    ),
    ("networking.k8s.io", "networkpolicies"): (
        Column("Pod-Selector", lambda o: selector({"spec": {"selector": o["spec"].get("podSelector")}})),
        _AGE,
    ),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): (Column("Role", role_ref), _AGE),
    ("rbac.authorization.k8s.io", "rolebindings"): (Column("Role", role_ref), _AGE),
    ("scheduling.k8s.io", "priorityclasses"): (
        Column("Value", number("value"), "integer"),
        Column("Global-Default", lambda o: bool(o.get("globalDefault")), "boolean"),
        _AGE,
    ),
}
COLUMNS["events.k8s.io", "events"] = COLUMNS["", "events"]
