"""Node life: taints that follow readiness, silent nodes, eviction by NoExecute taints, pods of vanished
nodes.
"""

from __future__ import annotations

import asyncio

from local.client.api import ApiError
from local.client.events import Recorder
from local.client.informer import Cache
from local.client.kinds import LEASES, NODES, PODS, Key, Obj
from local.client.objects import age, condition, deleting, stamp
from local.client.placement import tolerates
from local.client.queue import Queue

NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
SILENCE = 40.0
"""Seconds without a lease renewal until a node counts as unreachable (node-monitor-grace-period)."""
DEFAULT_TOLERATION = 300.0
"""Seconds that pods stay on a node that is not ready or unreachable (DefaultTolerationSeconds)."""


class Nodes:
    """The node lifecycle controller, the taint eviction controller and the pod collector of lost nodes."""

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self._cache = cache
        self._recorder = recorder
        self._nodes: Queue[Key] = Queue("node", self._reconcile)
        self._pods: Queue[Key] = Queue("pod eviction", self._evict)

    async def run(self) -> None:
        await self._cache.sync(NODES, PODS, LEASES)
        self._cache.of(NODES).on_change(self._node_changed)
        self._cache.of(PODS).on_change(self._pod_changed)
        await asyncio.gather(self._nodes.run(), self._pods.run())

    def _node_changed(self, old: Obj | None, new: Obj | None) -> None:
        node = new or old
        assert node is not None
        name = node["metadata"]["name"]
        self._nodes.add(("", name))
        taints = [((each or {}).get("spec") or {}).get("taints") for each in (old, new)]
        if new is None or taints[0] != taints[1]:
            for pod in self._cache.of(PODS).items():
                if pod["spec"].get("nodeName") == name:
                    self._pods.add((pod["metadata"]["namespace"], pod["metadata"]["name"]))

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        before = old["spec"].get("nodeName") if old else None
        if new and new["spec"].get("nodeName") and new["spec"].get("nodeName") != before:
            self._pods.add((new["metadata"]["namespace"], new["metadata"]["name"]))

    async def _reconcile(self, key: Key) -> float | None:
        node = self._cache.of(NODES).get(*key)
        if node is None or deleting(node):
            return None
        name = node["metadata"]["name"]
        ready = condition(node, "Ready")
        lease = self._cache.of(LEASES).get("kube-node-lease", name)
        silent = (
            age((lease["spec"] or {}).get("renewTime"))
            if lease
            else age(node["metadata"].get("creationTimestamp"))
        )
        if silent > SILENCE and ready and ready["status"] != "Unknown":
            await self._lose(node)
            return SILENCE / 4
        status = ready["status"] if ready else "False"
        wanted = {"True": None, "False": NOT_READY, "Unknown": UNREACHABLE}[status]
        taints = (node.get("spec") or {}).get("taints") or []
        others = [each for each in taints if each["key"] not in (NOT_READY, UNREACHABLE)]
        right = list(others)
        if wanted:
            kept = [each for each in taints if each["key"] == wanted]
            right += kept or [{"key": wanted, "effect": "NoSchedule", "timeAdded": stamp()}]
            if status == "Unknown" and not any(
                each["effect"] == "NoExecute" for each in right if each["key"] == wanted
            ):
                right.append({"key": wanted, "effect": "NoExecute", "timeAdded": stamp()})
        if right != taints:
            # With the resourceVersion: a list is replaced as a whole, and others change taints too.
            version = node["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "spec": {"taints": right or None}}
            await self._cache.patch(NODES, node, body)
        return SILENCE / 4

    async def _lose(self, node: Obj) -> None:
        text = "Kubelet stopped posting node status."
        conditions = [
            {
                **each,
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": text,
                "lastTransitionTime": stamp(),
            }
            for each in (node.get("status") or {}).get("conditions") or []
        ]
        await self._cache.patch(NODES, node, {"status": {"conditions": conditions}}, sub="status")
        name = node["metadata"]["name"]
        self._recorder.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")

    async def _evict(self, key: Key) -> float | None:
        pod = self._cache.of(PODS).get(*key)
        name = pod["spec"].get("nodeName") if pod else None
        if pod is None or not name:
            return None
        node = self._cache.of(NODES).get("", name)
        if node is None:
            try:
                # Asked again: this cache may simply be behind.
                await self._cache.api.get(NODES, None, name)
            except ApiError as error:
                if not error.not_found:
                    raise
                await self._cache.delete(PODS, pod, grace=0)
            return None
        if deleting(pod):
            return None
        waits = [
            _tolerated_for(pod, taint)
            for taint in (node.get("spec") or {}).get("taints") or []
            if taint["effect"] == "NoExecute"
        ]
        due = [wait for wait in waits if wait is not None]
        if not due:
            return None
        if min(due) > 0:
            return min(due)
        text = f"Marking for deletion Pod {key[0]}/{key[1]}"
        self._recorder.event(pod, "Normal", "TaintManagerEviction", text)
        await self._cache.delete(PODS, pod)
        return None


def _tolerated_for(pod: Obj, taint: Obj) -> float | None:
    """Seconds that the pod may still stay under the taint; None for ever, 0 for not at all."""
    matching = [each for each in pod["spec"].get("tolerations") or [] if tolerates([each], taint)]
    if not matching:
        if taint["key"] not in (NOT_READY, UNREACHABLE):
            return 0.0
        matching = [{"tolerationSeconds": DEFAULT_TOLERATION}]
    limits = [each["tolerationSeconds"] for each in matching if each.get("tolerationSeconds") is not None]
    if not limits:
        return None
    return float(max(0.0, min(limits) - age(taint.get("timeAdded"))))
