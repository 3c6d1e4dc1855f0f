"""Can Neuron nodes be bought, and do those that are there offer their chips?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trainyard.doctor.findings import Finding, Part
from trainyard.doctor.objects import APPLY
from trainyard.kube.capacity import NEURON, allocatable_chips, conditions
from trainyard.kube.cluster import Cluster, Object
from trainyard.kube.devices import why
from trainyard.kube.requirements import INSTANCE_TYPE, labels_of, refusal, requirements_of
from trainyard.neuron.instances import INSTANCES
from trainyard.spec import Spec

_POOLS, _DEVICES = Part("capacity"), Part("devices")
# By Karpenter's conditions: what is usually behind one that is not true.
_MENDS = {
    "AMIsReady": "No AMI matches spec.amiSelectorTerms: name a version of al2023 that this region has.",
    "SubnetsReady": "No subnet matches spec.subnetSelectorTerms: tag subnets karpenter.sh/discovery=CLUSTER.",
    "SecurityGroupsReady": "No security group matches spec.securityGroupSelectorTerms: tag one.",
    "InstanceProfileReady": "Karpenter cannot use spec.role: make that IAM role, and let Karpenter pass it.",
    "CapacityReservationsReady": "Karpenter cannot read the reservations: see its log and its IAM policy.",
    "ValidationSucceeded": "EC2 or Karpenter refuses what it says: see the message, and Karpenter's log.",
    "NodeClassReady": "Mend its EC2NodeClass.",
    "NodeRegistrationHealthy": "Nodes were bought and did not join: see the newest NodeClaim's events.",
}


def pools(cluster: Cluster, specs: Iterable[Spec]) -> Iterator[Finding]:
    """The NodePools that the catalogue names, and their EC2NodeClasses."""
    wanted: dict[str, dict[str, str]] = {}
    for spec in specs:
        wanted.setdefault(spec.hardware.nodepool, {})[spec.name] = spec.hardware.instance_type
    classes: set[str] = set()
    for name, models in sorted(wanted.items()):
        about, pool = f"NodePool {name}", cluster.find("NodePool", name)
        if pool is None:
            yield _POOLS.failed(
                about,
                f"it does not exist, and {', '.join(sorted(models))} asks for it",
                f"{APPLY}, or name another in hardware.nodepool.",
            )
            continue
        yield _ready(pool, about)
        yield from _offers(pool, about, models)
        classes.add(pool["spec"]["template"]["spec"]["nodeClassRef"]["name"])
    for name in sorted(classes):
        about, node_class = f"EC2NodeClass {name}", cluster.find("EC2NodeClass", name)
        if node_class is None:
            yield _POOLS.failed(about, "it does not exist, and a NodePool refers to it", f"{APPLY} makes it.")
        else:
            yield _ready(node_class, about)


def _ready(obj: Object, about: str) -> Finding:
    known = conditions(obj)
    if known.get("Ready", {}).get("status") == "True":
        limit = (obj["spec"].get("limits") or {}).get(NEURON)
        used = ((obj.get("status") or {}).get("resources") or {}).get(NEURON, "0")
        return _POOLS.ok(about, f"ready, {used} of {limit} chips in use" if limit is not None else "ready")
    if not known:
        return _POOLS.failed(
            about,
            "Karpenter has not looked at it",
            "Is Karpenter running? kubectl get pods -A | grep karpenter",
        )
    # Ready sums up the others, and NodeRegistrationHealthy is unknown until a node was bought.
    bad = [(kind, item) for kind, item in known.items() if item["status"] == "False" and kind != "Ready"] or [
        ("Ready", known.get("Ready") or {"status": "Unknown"})
    ]
    said = "; ".join(
        f"{kind}: {item.get('reason') or item['status']} {item.get('message') or ''}".strip()
        for kind, item in bad
    )
    mend = next((_MENDS[kind] for kind, _ in bad if kind in _MENDS), f"kubectl describe {about.lower()}")
    return _POOLS.failed(about, f"not ready: {said}", mend)


def _offers(pool: Object, about: str, models: dict[str, str]) -> Iterator[Finding]:
    """Instance types of the catalogue that the pool can never buy."""
    requirements, limit = requirements_of(pool), (pool["spec"].get("limits") or {}).get(NEURON)
    for kind in sorted(set(models.values())):
        users = ", ".join(sorted(model for model, asked in models.items() if asked == kind))
        said = refusal(requirements, labels_of(kind))
        if said is not None:
            yield _POOLS.failed(
                f"{about}, {kind}",
                f"{users} can never be scheduled: {said}",
                "Add it to the pool, or choose another.",
            )
        elif kind in INSTANCES and limit is not None and int(limit) < INSTANCES[kind].chips:
            yield _POOLS.warning(
                f"{about}, {kind}",
                f"the pool is limited to {limit} chips, one such node has {INSTANCES[kind].chips} ({users})",
                f"Raise spec.limits of {about}.",
            )


def devices(cluster: Cluster) -> Iterator[Finding]:
    """Neuron nodes offer their chips. None at all is right too: they come when a pod asks."""
    found = [node for node in cluster.list("Node") if _type_of(node) in INSTANCES]
    for node in found:
        name, kind = node["metadata"]["name"], _type_of(node)
        about, chips, offered = f"node {name}", INSTANCES[kind].chips, allocatable_chips(node)
        health = conditions(node).get("NeuronHealth", {})
        if str(health.get("reason", "")).startswith("NeuronHasError"):
            yield _DEVICES.failed(
                about,
                f"{kind}: NeuronHealth says {health['reason']} {health.get('message') or ''}".strip(),
                f"Replace it: kubectl cordon {name}, then delete its NodeClaim.",
            )
        elif offered == chips:
            yield _DEVICES.ok(about, f"{kind} offers its {chips} chips")
        elif conditions(node).get("Ready", {}).get("status") != "True":
            yield _DEVICES.warning(
                about,
                f"{kind} is not ready yet and offers {offered} of {chips} chips",
                "Look again in some minutes.",
            )
        else:
            yield _DEVICES.failed(
                about,
                f"{kind} offers {offered} of {chips} chips",
                f"{why(cluster, node)} (deploy/cluster/charts/neuron-helm-chart.yaml)",
            )
    if not found:
        yield _DEVICES.ok(
            "nodes", "no Neuron node is there now, so nothing says whether the device plugin works"
        )


def _type_of(node: Object) -> str:
    return str((node["metadata"].get("labels") or {}).get(INSTANCE_TYPE, ""))
