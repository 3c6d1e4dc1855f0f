"""What is waited for of Karpenter: a NodePool, capacity, a NodeClaim. Each function takes one look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from trainyard.errors import NotFound, PermanentError, Unschedulable
from trainyard.kube import claims, diagnosis
from trainyard.kube.capacity import NEURON, assess, conditions, free_chips, limits_left, readiness, words
from trainyard.kube.cluster import Cluster, Object
from trainyard.kube.looks import Look
from trainyard.kube.offerings import Chosen, Offering, Supply, choose, offering_from
from trainyard.kube.quantity import written
from trainyard.kube.requirements import CAPACITY_TYPE, INSTANCE_TYPE, NODEPOOL, ZONE
from trainyard.kube.shortages import REASON, lacks_capacity, time_of


def nodepool_ready(cluster: Cluster, *, nodepool: str) -> Look:
    """NodePool and EC2NodeClass ready. Raises NotFound, PermanentError."""
    pool, nodeclass = _pool(cluster, nodepool)
    permanent, passing = readiness(pool, nodeclass, nodepool)
    if permanent:
        raise PermanentError(" ".join(permanent))
    data = {
        "conditions": {
            obj["kind"]: {kind: item["status"] for kind, item in conditions(obj).items()}
            for obj in (pool, nodeclass)
            if obj is not None
        }
    }
    if passing:
        return Look(False, " ".join(passing), data)
    note = f"NodePool {nodepool} and its EC2NodeClass are ready"
    # No part of Ready, but a pool whose nodes do not join is of little use.
    joins = conditions(pool).get("NodeRegistrationHealthy")
    if joins is not None and joins["status"] == "False":
        note += f"; but its nodes have not joined of late ({words(joins)})"
    return Look(True, note, data)


def capacity_free(
    cluster: Cluster,
    *,
    nodepool: str,
    chips: int,
    order: Sequence[Offering | Mapping[str, Any] | str] = (),
    work_seconds: float = 0.0,
) -> Look:
    """NodePool ready, limits not used up, no recent lack of capacity; or a running node with free chips.

    order: offerings, the first that is open is chosen. work_seconds: reservations have to last that long.
    Raises NotFound, PermanentError, Unschedulable where waiting cannot help.
    """
    pool, nodeclass = _pool(cluster, nodepool)
    nodes, pods = cluster.list("Node"), cluster.list("Pod")
    lacking = cluster.list("Event", fields=f"reason={REASON}")
    now = datetime.now(UTC)
    if order:
        supply = Supply(pool, nodeclass, lacking, nodes, pods, now)
        return _first_open([offering_from(each) for each in order], supply, chips, work_seconds)
    free = free_chips(nodes, pods, nodepool)
    found = assess(pool, nodeclass, chips, lacking, now, name=nodepool, free_chips=free)
    if found.permanent:
        raise PermanentError(" ".join(found.permanent))
    data = {"free_chips": free, "chips_left": _chips_left(pool)}
    if free >= chips:
        return Look(True, f"a running node of {nodepool} has {free} chips free, {chips} are needed", data)
    if found.passing:
        return Look(False, " ".join(found.passing), data)
    notes = "; ".join(found.notes) or "no limit on chips"
    return Look(True, f"NodePool {nodepool} and its EC2NodeClass are ready; {notes}", data)


def _first_open(order: Sequence[Offering], supply: Supply, chips: int, work_seconds: float) -> Look:
    name = supply.nodepool["metadata"]["name"]
    permanent, passing = readiness(supply.nodepool, supply.nodeclass, name)
    if permanent:
        raise PermanentError(" ".join(permanent))
    found = choose(order, supply, chips, work_seconds)
    fallen = found.fallen if isinstance(found, Chosen) else found
    said = "; ".join(f"{each.offering}: {each.reason}" for each in fallen)
    if not isinstance(found, Chosen):
        if all(each.permanent for each in fallen):
            raise Unschedulable(
                f"NodePool {name} can never give {chips} chips as asked. {said}", reason="Unschedulable"
            )
        return Look(False, " ".join([*passing, f"no offering is open now. {said}"]))
    if passing and found.node is None:
        return Look(False, " ".join(passing))
    left = _chips_left(supply.nodepool)
    limit = "no limit on chips" if left is None else f"{left} chips left below the limit"
    note = f"{found.offering}: {found.reason}; {limit} of NodePool {name}"
    note += f". Passed over: {said}" if said else ""
    return Look(True, note, {**found.data(), "chips_left": left})


def _chips_left(pool: Object) -> str | None:
    limit = limits_left(pool).get(NEURON)
    return None if limit is None else written(limit[1])


def _pool(cluster: Cluster, name: str) -> tuple[Object, Object | None]:
    pool = cluster.find("NodePool", name)
    if pool is None:
        raise NotFound(
            f"NodePool {name} does not exist. Apply deploy/cluster, or name another (hardware.nodepool)."
        )
    reference = pool["spec"]["template"]["spec"]["nodeClassRef"]["name"]
    return pool, cluster.find("EC2NodeClass", reference)


def nodeclaim(
    cluster: Cluster,
    *,
    name: str = "",
    labels: str = "",
    pod: str = "",
    namespace: str = "default",
    until: str = claims.READY,
    chips: int = 0,
) -> Look:
    """Follows a NodeClaim, by its name, by labels (the newest), or as the one that a pod waits for.

    until: Launched, Registered, Initialized or Ready. chips: that its node has to offer in the end.
    Raises NotFound for a name that went for want of capacity: the next claim has another one.
    """
    if pod:
        return _of_pod(cluster, namespace, pod, until, chips)
    if labels:
        claim = claims.newest(cluster.list("NodeClaim", labels=labels))
        if claim is None:
            said = _last_refusal(cluster, labels)
            return Look(False, f"no NodeClaim has the labels {labels}{said}")
        return _standing(cluster, claim, until, chips)
    claim = cluster.find("NodeClaim", name)
    if claim is not None:
        return _standing(cluster, claim, until, chips)
    said_of_it = claims.refused(cluster.list("Event", fields=f"involvedObject.name={name}"), name)
    if said_of_it is not None:
        raise NotFound(
            f"NodeClaim {name} is gone, because EC2 had no capacity: {said_of_it} Karpenter makes another "
            f"one with another name: wait for it by labels or by its pod."
        )
    return Look(False, f"there is no NodeClaim {name}")


def _of_pod(cluster: Cluster, namespace: str, name: str, until: str, chips: int) -> Look:
    pod = cluster.find("Pod", name, namespace)
    if pod is None:
        return Look(False, f"there is no pod {namespace}/{name}")
    host = (pod.get("spec") or {}).get("nodeName")
    if host:
        owners = [
            claim
            for claim in cluster.list("NodeClaim")
            if (claim.get("status") or {}).get("nodeName") == host
        ]
        if not owners:
            return Look(True, f"pod {name} runs on {host}, which no NodeClaim made", {"node": host})
        return _standing(cluster, owners[0], until, chips)
    events = cluster.events(namespace, name)
    never = diagnosis.never_schedulable(pod, events)
    if never is not None:
        raise never
    chosen = claims.nominated(events)
    claim = cluster.find("NodeClaim", chosen) if chosen else None
    if claim is not None:
        return _standing(cluster, claim, until, chips)
    said = ""
    if chosen:
        lack = claims.refused(cluster.list("Event", fields=f"involvedObject.name={chosen}"), chosen)
        said = f"EC2 had no capacity for NodeClaim {chosen}, Karpenter keeps trying: {lack}" if lack else ""
    said = said or diagnosis.unschedulable(pod, events) or "not looked at yet"
    return Look(False, f"pod {name} waits for Karpenter to make a NodeClaim ({said})")


def _standing(cluster: Cluster, claim: Object, until: str, chips: int) -> Look:
    meta, status = claim["metadata"], claim.get("status") or {}
    host = status.get("nodeName")
    node = cluster.find("Node", host) if host and chips else None
    seen = claims.progress(claim, node, chips, until)
    found = meta.get("labels") or {}
    data = {
        "nodeclaim": meta["name"],
        "stage": seen.stage,
        "node": host,
        "instance_type": found.get(INSTANCE_TYPE),
        "zone": found.get(ZONE),
        "capacity_type": found.get(CAPACITY_TYPE),
    }
    if meta.get("deletionTimestamp"):
        return Look(False, f"NodeClaim {meta['name']} is being deleted ({seen.stage})", data)
    if seen.ready:
        on = f" as node {host}" if host else ""
        return Look(True, f"NodeClaim {meta['name']} is {until}{on}", data)
    return Look(False, f"NodeClaim {meta['name']}: {seen.stage}; waiting for {seen.waiting_for}", data)


def _last_refusal(cluster: Cluster, labels: str) -> str:
    """What EC2 last said of the NodePool that the labels name: a refused claim is gone, its event is not."""
    named = dict(item.split("=", 1) for item in labels.split(",") if "=" in item)
    pool = named.get(NODEPOOL, "")
    events = [
        event for event in cluster.list("Event", fields=f"reason={REASON}") if lacks_capacity(event, pool)
    ]
    last = max(events, key=time_of, default=None)
    return f"; last word on capacity, at {time_of(last):%H:%M:%S} UTC: {last.get('message')}" if last else ""
