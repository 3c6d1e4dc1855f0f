"""What is waited for in the cluster. Each watcher takes one look and says how far things are.

The Airflow trigger calls a look again and again in a thread; tests call it directly. A look raises a typed
error when waiting longer is pointless; it never sleeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from trainyard.errors import CanaryNotReady, TrainyardError
from trainyard.kube import claims, diagnosis, shortages
from trainyard.kube.cluster import Cluster, Object
from trainyard.kube.devices import device_plugin
from trainyard.kube.karpenter import capacity_free, nodeclaim, nodepool_ready
from trainyard.kube.looks import Look
from trainyard.kube.requirements import NODEPOOL


def node_ready(
    cluster: Cluster, *, namespace: str, labels: str, chips: int, nodepool: str, pods_named: str = ""
) -> Look:
    """Follows the node of a Neuron pod from NodeClaim to allocatable devices, beside the pod itself.

    pods_named: what the pod's name begins with; tells one that came and went from one that is yet to come.
    Raises Unschedulable where no NodePool can ever serve it.
    """
    pods = cluster.list("Pod", namespace, labels=labels)
    if not pods:
        gone = _was_scheduled(cluster, namespace, pods_named)
        return Look(True, gone) if gone else Look(False, "waiting for the pod to be created")
    pod = max(pods, key=lambda item: item["metadata"]["creationTimestamp"])
    name, phase = pod["metadata"]["name"], (pod.get("status") or {}).get("phase")
    host = (pod.get("spec") or {}).get("nodeName")
    if phase in ("Succeeded", "Failed"):
        return Look(True, f"pod {name} has ended ({phase}) on {host or 'no node'}", _node_data(cluster, host))
    if host:
        return Look(True, f"pod {name} runs on {host}", _node_data(cluster, host))
    events = cluster.events(namespace, name)
    never = diagnosis.never_schedulable(pod, events)
    if never is not None:
        raise never
    claim = claims.newest(
        claim
        for claim in cluster.list("NodeClaim", labels=f"{NODEPOOL}={nodepool}")
        if not claim["metadata"].get("deletionTimestamp")
    )
    if claim is None:
        lack = _lack(cluster, pod, nodepool)
        if lack:
            return Look(False, f"EC2 has no capacity for the node, Karpenter keeps trying: {lack}")
        said = diagnosis.unschedulable(pod, events)
        return Look(False, f"waiting for Karpenter to make a NodeClaim ({said or 'not looked at yet'})")
    node_name = (claim.get("status") or {}).get("nodeName")
    node = cluster.find("Node", node_name) if node_name else None
    seen = claims.progress(claim, node, chips)
    if seen.ready:
        return Look(False, f"NodeClaim {claim['metadata']['name']} is ready; waiting for the pod to be bound")
    return Look(False, f"NodeClaim {claim['metadata']['name']}: {seen.stage}; waiting for {seen.waiting_for}")


def _was_scheduled(cluster: Cluster, namespace: str, prefix: str) -> str:
    """What the scheduler said of a pod that is gone already: a short one may live between two looks."""
    if not prefix:
        return ""
    said = [
        str(event.get("message"))
        for event in cluster.list("Event", namespace, fields="reason=Scheduled")
        if str(event["involvedObject"].get("name") or "").startswith(prefix)
    ]
    return f"the pod has come and gone: {said[-1]}" if said else ""


def _lack(cluster: Cluster, pod: Object, nodepool: str) -> str:
    """What EC2 said of this pod's node. Karpenter deletes a NodeClaim that found no capacity: only the event
    tells."""
    since = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    said = [
        event
        for event in cluster.list("Event", fields=f"reason={shortages.REASON}")
        if shortages.lacks_capacity(event, nodepool) and shortages.time_of(event) >= since
    ]
    return str(max(said, key=shortages.time_of).get("message")) if said else ""


def _node_data(cluster: Cluster, host: str | None) -> dict[str, Any]:
    node = cluster.find("Node", host) if host else None
    if node is None:
        return {}
    labels = node["metadata"].get("labels") or {}
    return {
        "node": host,
        "instance_type": labels.get("node.kubernetes.io/instance-type"),
        "capacity_type": labels.get("karpenter.sh/capacity-type"),
        "zone": labels.get("topology.kubernetes.io/zone"),
        "node_created_at": node["metadata"]["creationTimestamp"],
    }


def servers_ready(cluster: Cluster, *, namespace: str, name: str, labels: str, container: str) -> Look:
    """All replicas ready. Raises CanaryNotReady with the last log lines when they keep dying."""
    deployment = cluster.find("Deployment", name, namespace)
    if deployment is None:
        raise CanaryNotReady(f"Deployment {namespace}/{name} is gone: somebody or a rollback removed it.")
    wanted = int(deployment["spec"].get("replicas", 1))
    status = deployment.get("status") or {}
    ready = int(status.get("readyReplicas") or 0)
    if ready >= wanted and status.get("observedGeneration") == deployment["metadata"].get("generation"):
        return Look(True, f"{ready} of {wanted} servers answered a real generation and are ready")
    words = []
    for pod in cluster.list("Pod", namespace, labels=labels):
        error = diagnosis.stuck(pod)
        looping = diagnosis.crash_looping(pod)
        if error is None and looping is not None:
            error = _dead(cluster, pod, looping, container)
        if error is not None:
            raise error
        words.append(f"{pod['metadata']['name']}: {_phase(pod)}")
    return Look(False, f"{ready} of {wanted} ready; {'; '.join(words) or 'no pod yet'}")


def _dead(cluster: Cluster, pod: Object, item: Object, container: str) -> TrainyardError:
    meta = pod["metadata"]
    log = cluster.log(meta["name"], meta["namespace"], item["name"], previous=True) or cluster.log(
        meta["name"], meta["namespace"], item["name"]
    )
    last = (item.get("lastState") or {}).get("terminated") or {}
    corpse = {**pod, "status": {"containerStatuses": [{**item, "state": {"terminated": last}}]}}
    died = diagnosis.ended(corpse, log)
    if died is not None and type(died).__name__ != "PodFailed":
        return died
    tail = "\n".join(f"  | {line}" for line in log.splitlines()[-15:])
    return CanaryNotReady(
        f"Container {item['name']} of pod {meta['name']} keeps dying: exit code {last.get('exitCode')} "
        f"({last.get('reason')}), {item.get('restartCount')} restart(s). Last log lines:\n{tail}"
    )


def _phase(pod: Object) -> str:
    for item in diagnosis.statuses(pod):
        state = item.get("state") or {}
        if "waiting" in state:
            return f"{item['name']} waits ({state['waiting'].get('reason')})"
        if "running" in state and not item.get("ready"):
            return f"{item['name']} runs, not ready yet"
    return str((pod.get("status") or {}).get("phase") or "Pending")


def elapsed(cluster: Cluster, *, until: str, words: str) -> Look:
    """Waits for a moment (ISO 8601, UTC)."""
    left = (datetime.fromisoformat(until.replace("Z", "+00:00")) - datetime.now(UTC)).total_seconds()
    return Look(left <= 0, words if left <= 0 else f"{words}: {left:.0f} s left")


def last_words(cluster: Cluster, watcher: str, arguments: Mapping[str, Any]) -> str:
    """What the pods that were waited for said last; added to the error when time is up."""
    if watcher != "servers_ready":
        return ""
    out = []
    for pod in cluster.list("Pod", arguments["namespace"], labels=arguments["labels"]):
        name = pod["metadata"]["name"]
        for item in diagnosis.statuses(pod):
            if item.get("ready") or "waiting" in (item.get("state") or {}):
                continue
            log = cluster.log(name, arguments["namespace"], item["name"], tail=15)
            out += [
                f"Last log lines of {name}/{item['name']}:",
                *(f"  | {line}" for line in log.splitlines()),
            ]
        words = [str(event.get("message")) for event in cluster.events(arguments["namespace"], name)[-2:]]
        out += [f"Last events of {name}: {' | '.join(words)}"] if words else []
    return "\n".join(out)


WATCHERS: Mapping[str, Callable[..., Look]] = {
    "capacity_free": capacity_free,
    "device_plugin": device_plugin,
    "node_ready": node_ready,
    "nodeclaim": nodeclaim,
    "nodepool_ready": nodepool_ready,
    "servers_ready": servers_ready,
    "elapsed": elapsed,
}
