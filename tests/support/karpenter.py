"""Karpenter's objects and events, written into a bare API server as Karpenter would."""

from __future__ import annotations

from typing import Any

from tests.support.cluster import Cluster as Server
from trainyard.release import now

Obj = dict[str, Any]
NEURON = "aws.amazon.com/neuron"
POOLS, CLASSES = "/apis/karpenter.sh/v1/nodepools", "/apis/karpenter.k8s.aws/v1/ec2nodeclasses"
CLAIMS, NODES = "/apis/karpenter.sh/v1/nodeclaims", "/api/v1/nodes"
ICE = (
    "NodeClaim x event: creating instance, insufficient capacity, with fleet error(s), "
    "InsufficientInstanceCapacity: We currently do not have sufficient trn2.48xlarge capacity in the "
    "Availability Zone you requested (us-east-2b). Our system will be working on it."
)


def patch_status(server: Server, path: str, status: Obj) -> None:
    server.request("PATCH", f"{path}/status", {"status": status}, media="application/merge-patch+json")


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> Obj:
    return {
        "type": kind,
        "status": status,
        "reason": reason or kind,
        "message": message,
        "lastTransitionTime": now(),
    }


def create_pool(
    server: Server, name: str, *, limits: Obj | None = None, requirements: list[Obj] | None = None
) -> str:
    """A ready NodePool with a ready EC2NodeClass of the same name, in two zones; 16 chips at most."""
    reference = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": name}
    template = {"spec": {"nodeClassRef": reference, "requirements": requirements or []}}
    nodeclass = {
        "amiSelectorTerms": [{"alias": "al2023@latest"}],
        "subnetSelectorTerms": [{"tags": {"a": "b"}}],
        "securityGroupSelectorTerms": [{"tags": {"a": "b"}}],
        "role": "r",
    }
    pool = {"template": template, "limits": {NEURON: "16"} if limits is None else limits}
    for path, kind, spec in ((CLASSES, "EC2NodeClass", nodeclass), (POOLS, "NodePool", pool)):
        group = "/".join(path.split("/")[2:4])
        body = {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec}
        server.request("POST", path, body)
        patch_status(server, f"{path}/{name}", {"conditions": [condition("Ready")]})
    zones = [{"id": f"subnet-{zone}", "zone": zone} for zone in ("us-east-2a", "us-east-2b")]
    patch_status(server, f"{CLASSES}/{name}", {"subnets": zones})
    return name


def create_event(
    server: Server, namespace: str, name: str, reason: str, message: str, kind: str = "Pod", at: str = ""
) -> None:
    body = {
        "metadata": {"generateName": "e-", "namespace": namespace},
        "involvedObject": {"kind": kind, "name": name, "namespace": namespace},
        "reason": reason,
        "message": message,
        "type": "Normal",
        "lastTimestamp": at or now()[:19] + "Z",
    }
    server.request("POST", f"/api/v1/namespaces/{namespace}/events", body)


def create_claim(server: Server, name: str, pool: str, *conditions: Obj, **status: Any) -> None:
    reference = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": pool}
    body = {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodeClaim",
        "metadata": {"name": name, "labels": {"karpenter.sh/nodepool": pool}},
        "spec": {"nodeClassRef": reference, "requirements": []},
    }
    server.request("POST", CLAIMS, body)
    set_claim(server, name, *conditions, **status)


def set_claim(server: Server, name: str, *conditions: Obj, **status: Any) -> None:
    patch_status(server, f"{CLAIMS}/{name}", {"conditions": list(conditions), **status})


def create_node(server: Server, name: str, pool: str, *, chips: int = 0, kind: str = "trn2.48xlarge") -> None:
    labels = {
        "karpenter.sh/nodepool": pool,
        "node.kubernetes.io/instance-type": kind,
        "karpenter.sh/capacity-type": "on-demand",
        "topology.kubernetes.io/zone": "us-east-2b",
    }
    server.request("POST", NODES, {"metadata": {"name": name, "labels": labels}})
    offer(server, name, chips)


def offer(server: Server, name: str, chips: int, capacity: int | None = None) -> None:
    """What the device plugin advertises; no chips: as if it were not there."""
    held = chips if capacity is None else capacity
    devices = {NEURON: str(chips)} if chips or held else {}
    total = {NEURON: str(held)} if held else {}
    patch_status(server, f"{NODES}/{name}", {"allocatable": devices, "capacity": total})


def create_pod(
    server: Server,
    namespace: str,
    name: str,
    *,
    node: str = "",
    image: str = "x:1",
    labels: Obj | None = None,
    **status: Any,
) -> None:
    spec: Obj = {"containers": [{"name": "server", "image": image, "resources": {"limits": {NEURON: "4"}}}]}
    if node:
        spec["nodeName"] = node
    body = {"metadata": {"name": name, "labels": labels or {"r": "x"}}, "spec": spec}
    server.request("POST", f"/api/v1/namespaces/{namespace}/pods", body)
    if status:
        patch_status(server, f"/api/v1/namespaces/{namespace}/pods/{name}", status)
