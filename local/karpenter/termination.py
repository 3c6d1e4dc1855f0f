"""A NodeClaim's way down: taint, drain, node away, instance away."""

from __future__ import annotations

from local.client.api import ApiError
from local.client.events import Recorder
from local.client.informer import Cache
from local.client.kinds import NODECLAIMS, NODES, PODS, Obj, Resource
from local.client.objects import condition, deleting
from local.client.placement import tolerates
from local.karpenter.claims import TERMINATION, set_condition

DISRUPTED = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}


class Termination:
    """Finishes NodeClaims that are being deleted."""

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self._cache = cache
        self._recorder = recorder

    async def finish(self, claim: Obj, node: Obj | None) -> float | None:
        """One step further; seconds until the next look, None when the claim is done."""
        if TERMINATION not in (claim["metadata"].get("finalizers") or []):
            return None
        if node is not None:
            waiting = await self._drain(node)
            if waiting:
                await self._mark(
                    claim,
                    "Drained",
                    "Unknown",
                    "Draining",
                    f"Draining, {waiting} pods are waiting to be evicted",
                )
                return 0.2
            await self._mark(claim, "Drained", "True", "Drained", "")
            await self._cache.delete(NODES, node)
            fresh = self._cache.of(NODES).get("", node["metadata"]["name"])
            await self._release(NODES, fresh or node)
            return 0.05
        await self._release(NODECLAIMS, claim)
        return None

    async def _drain(self, node: Obj) -> int:
        """Taint the node, ask its pods to go; how many are still there."""
        taints = node["spec"].get("taints") or []
        if not any(each["key"] == DISRUPTED["key"] for each in taints):
            version = node["metadata"]["resourceVersion"]
            await self._cache.patch(
                NODES,
                node,
                {"metadata": {"resourceVersion": version}, "spec": {"taints": [*taints, DISRUPTED]}},
            )
        waiting = 0
        for pod in list(self._cache.of(PODS).items()):
            if pod["spec"].get("nodeName") != node["metadata"]["name"]:
                continue
            if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") and not deleting(pod):
                continue
            if tolerates(pod["spec"].get("tolerations") or [], DISRUPTED) and not deleting(pod):
                continue
            waiting += 1
            if not deleting(pod):
                self._recorder.event(pod, "Normal", "Evicted", "Evicted pod: Disrupted")
                await self._cache.delete(PODS, pod)
        return waiting

    async def _mark(self, claim: Obj, kind: str, status: str, reason: str, message: str) -> None:
        old = condition(claim, kind)
        if old and (old["status"], old["message"]) == (status, message):
            return
        conditions = set_condition(claim, kind, status, reason, message)
        try:
            await self._cache.patch(NODECLAIMS, claim, {"status": {"conditions": conditions}}, sub="status")
        except ApiError as error:
            if not error.not_found:
                raise

    async def _release(self, resource: Resource, obj: Obj) -> None:
        kept = [each for each in obj["metadata"].get("finalizers") or [] if each != TERMINATION]
        if len(kept) == len(obj["metadata"].get("finalizers") or []):
            return
        try:
            await self._cache.patch(resource, obj, {"metadata": {"finalizers": kept or None}})
        except ApiError as error:
            if not error.not_found:
                raise
