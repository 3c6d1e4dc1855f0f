"""Does a node offer its Neuron devices? Where it does not, what of the device plugin is missing."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard.errors import PermanentError
from trainyard.kube import diagnosis
from trainyard.kube.capacity import NEURON, allocatable_chips
from trainyard.kube.cluster import Cluster, Object
from trainyard.kube.looks import Look
from trainyard.kube.quantity import whole
from trainyard.kube.requirements import INSTANCE_TYPE, NODEPOOL
from trainyard.neuron.instances import INSTANCES

PLUGIN = "neuron-device-plugin"
_INSTALL = (
    "Install it with the Neuron Helm chart (devicePlugin.enabled=true): the raw manifest leaves trn2 out."
)


def device_plugin(
    cluster: Cluster, *, node: str = "", nodepool: str = "", labels: str = "", chips: int = 0, nodes: int = 1
) -> Look:
    """Every node offers its chips: one node by name, or all of a NodePool or of labels.

    chips: per node; 0: as many as the instance type has. nodes: how many there have to be at least.
    Raises PermanentError for an instance type that is not known, where chips are not said.
    """
    found = _nodes(cluster, node, nodepool, labels)
    what = f"node {node}" if node else f"nodes of {f'NodePool {nodepool}' if nodepool else labels}"
    if len(found) < nodes:
        return Look(False, f"{len(found)} {what} are there, {nodes} are waited for")
    wanted = {each["metadata"]["name"]: chips or _chips_of(each) for each in found}
    offered = {each["metadata"]["name"]: allocatable_chips(each) for each in found}
    data = {"offered": offered, "wanted": wanted}
    lacking = [each for each in found if offered[each["metadata"]["name"]] < wanted[each["metadata"]["name"]]]
    if not lacking:
        return Look(True, f"{sum(offered.values())} chips are offered by {len(found)} node(s)", data)
    said = [
        f"{(name := each['metadata']['name'])} offers {offered[name]} of {wanted[name]} chips: "
        f"{why(cluster, each)}"
        for each in lacking
    ]
    return Look(False, " | ".join(said), data)


def _nodes(cluster: Cluster, node: str, nodepool: str, labels: str) -> list[Object]:
    if node:
        one = cluster.find("Node", node)
        return [one] if one is not None else []
    selector = ",".join(filter(None, [f"{NODEPOOL}={nodepool}" if nodepool else "", labels]))
    return [
        each
        for each in cluster.list("Node", labels=selector)
        if not each["metadata"].get("deletionTimestamp")
    ]


def _chips_of(node: Object) -> int:
    kind = (node["metadata"].get("labels") or {}).get(INSTANCE_TYPE, "")
    if kind not in INSTANCES:
        raise PermanentError(
            f"Node {node['metadata']['name']} is of instance type {kind or 'unknown'}, which is no Neuron "
            f"instance type that Trainyard knows. Say its chips (chips=...), or choose other nodes."
        )
    return INSTANCES[kind].chips


def why(cluster: Cluster, node: Object) -> str:
    """Why a node offers fewer chips than it has: from the plugin's pod on it, and from the node itself."""
    name = node["metadata"]["name"]
    plugin = next(filter(is_plugin, cluster.list("Pod", fields=f"spec.nodeName={name}")), None)
    if plugin is None:
        return _absent(cluster)
    stuck = diagnosis.stuck(plugin)
    if stuck is not None:
        return str(stuck)
    phase = (plugin.get("status") or {}).get("phase")
    looping = diagnosis.crash_looping(plugin)
    if looping is not None:
        return f"{diagnosis.where(plugin)} keeps dying ({looping.get('restartCount')} restarts): see its log"
    if phase != "Running":
        return f"{diagnosis.where(plugin)} is {phase or 'Pending'}"
    capacity = whole(((node.get("status") or {}).get("capacity") or {}).get(NEURON))
    if capacity == 0:
        return (
            f"{diagnosis.where(plugin)} runs and finds no device: does the node's AMI have the Neuron driver "
            f"(the neuron variant of al2023)?"
        )
    if capacity > allocatable_chips(node):
        return (
            f"{capacity} are there, and the device plugin calls the others unhealthy: see the node's events"
        )
    return f"{diagnosis.where(plugin)} runs and has found {capacity} so far"


def _absent(cluster: Cluster) -> str:
    try:
        sets = cluster.list("DaemonSet")
    except PermanentError:  # not everybody may list them: what is known is enough to say
        return f"no {PLUGIN} pod is on it. {_INSTALL}"
    there = next((each for each in sets if PLUGIN in each["metadata"]["name"]), None)
    if there is None:
        return f"the cluster has no DaemonSet {PLUGIN}. {_INSTALL}"
    meta = there["metadata"]
    return (
        f"DaemonSet {meta.get('namespace')}/{meta['name']} puts no pod on it: its node affinity leaves the "
        f"instance type out, or a taint is not tolerated. {_INSTALL}"
    )


def is_plugin(pod: Object) -> bool:
    """By its name, or by the image, which is the same in every chart."""
    containers: Iterable[Object] = (pod.get("spec") or {}).get("containers") or []
    images = [str(item.get("image") or "") for item in containers]
    return any(PLUGIN in text for text in [pod["metadata"]["name"], *images])
