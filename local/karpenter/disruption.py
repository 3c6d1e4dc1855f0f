"""Consolidation: nodes that have been empty for `consolidateAfter` are given back."""

from __future__ import annotations

from local.client.events import Recorder
from local.client.informer import Cache, key_of
from local.client.kinds import NODECLAIMS, NODEPOOLS, PODS, Key, Obj
from local.client.objects import age, condition, deleting, is_true, parse_duration, stamp
from local.client.queue import Queue
from local.karpenter.claims import NODEPOOL, set_condition
from local.karpenter.provisioner import Provisioner

DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"


class Disruption:
    """Watches which nodes are empty."""

    def __init__(self, cache: Cache, recorder: Recorder, provisioner: Provisioner) -> None:
        self._cache = cache
        self._recorder = recorder
        self._provisioner = provisioner
        self._queue: Queue[Key] = Queue("disruption", self._reconcile)

    async def run(self) -> None:
        await self._cache.sync(NODECLAIMS, NODEPOOLS, PODS)
        self._cache.of(NODECLAIMS).on_change(lambda _, new: self._queue.add(key_of(new)) if new else None)
        self._cache.of(NODEPOOLS).on_change(self._pool_changed)
        self._cache.of(PODS).on_change(self._pod_changed)
        await self._queue.run()

    def _pool_changed(self, old: Obj | None, new: Obj | None) -> None:
        if old and new and old["spec"] != new["spec"]:
            for claim in self._cache.of(NODECLAIMS).items():
                self._queue.add(key_of(claim))

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        node = ((new or old or {}).get("spec") or {}).get("nodeName")
        if not node or (old and new and _counts(old) == _counts(new) and old["spec"].get("nodeName")):
            return
        for claim in self._cache.of(NODECLAIMS).items():
            if (claim.get("status") or {}).get("nodeName") == node:
                self._queue.add(key_of(claim))

    async def _reconcile(self, key: Key) -> float | None:
        claim = self._cache.of(NODECLAIMS).get(*key)
        if claim is None or deleting(claim) or not is_true(claim, "Initialized"):
            return None
        pool = self._cache.of(NODEPOOLS).get("", claim["metadata"]["labels"].get(NODEPOOL, ""))
        if pool is None:
            return None
        pods = [
            pod
            for pod in self._cache.of(PODS).items()
            if pod["spec"].get("nodeName") == claim["status"].get("nodeName") and _counts(pod)
        ]
        wait = parse_duration((pool["spec"].get("disruption") or {}).get("consolidateAfter", "0s"))
        if pods or wait is None or self._provisioner.nominated(key[1]):
            await self._consolidatable(claim, None)
            # A nomination ends without a change of this claim.
            return 1.0 if not pods and wait is not None else None
        empty = condition(claim, "Consolidatable")
        if empty is None:
            await self._consolidatable(claim, wait)
            return wait
        left = wait - age(claim["status"].get("lastPodEventTime"))
        if left > 0:
            return left
        if (claim["metadata"].get("annotations") or {}).get(DO_NOT_DISRUPT) == "true":
            text = (
                f'Cannot disrupt NodeClaim: Disruption is blocked through the "{DO_NOT_DISRUPT}" annotation'
            )
            self._recorder.event(claim, "Normal", "DisruptionBlocked", text)
            return 60.0
        if _budget_is_zero(pool):
            text = "No allowed disruptions for disruption reason Empty due to blocking budget"
            self._recorder.event(pool, "Normal", "DisruptionBlocked", text)
            return 60.0
        self._recorder.event(claim, "Normal", "DisruptionTerminating", "Disrupting NodeClaim: Empty")
        await self._cache.delete(NODECLAIMS, claim)
        return None

    async def _consolidatable(self, claim: Obj, wait: float | None) -> None:
        """Set or remove the condition; `lastPodEventTime` is when the node became empty."""
        old = condition(claim, "Consolidatable")
        if wait is None:
            if old is None:
                return
            conditions = [each for each in claim["status"]["conditions"] if each["type"] != "Consolidatable"]
            body: Obj = {"conditions": conditions}
        else:
            body = {"conditions": set_condition(claim, "Consolidatable", "True"), "lastPodEventTime": stamp()}
        await self._cache.patch(NODECLAIMS, claim, {"status": body}, sub="status")


def _counts(pod: Obj) -> bool:
    """Does the pod keep its node from being empty? Ended pods do not, those of DaemonSets neither."""
    owners = pod["metadata"].get("ownerReferences") or []
    if any(each["kind"] in ("DaemonSet", "Node") for each in owners):
        return False
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _budget_is_zero(pool: Obj) -> bool:
    budgets = (pool["spec"].get("disruption") or {}).get("budgets") or []
    return any(
        each["nodes"] in ("0", "0%")
        and "schedule" not in each
        and (not each.get("reasons") or "Empty" in each["reasons"])
        for each in budgets
    )
