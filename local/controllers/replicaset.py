"""ReplicaSets: as many pods as asked for."""

from __future__ import annotations

import asyncio

from local.client.api import ApiError
from local.client.events import Recorder
from local.client.informer import Cache, key_of
from local.client.kinds import PODS, REPLICASETS, Key, Obj
from local.client.objects import deleting, owner_reference, with_condition
from local.client.queue import Queue
from local.controllers.pods import active, available_in, enqueue_owner, pod_from_template, pods_of, ready


class ReplicaSets:
    """The ReplicaSet controller."""

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self._cache = cache
        self._recorder = recorder
        self._queue: Queue[Key] = Queue("replicaset", self._reconcile)

    async def run(self) -> None:
        await self._cache.sync(REPLICASETS, PODS)
        self._cache.of(REPLICASETS).on_change(lambda _, new: self._queue.add(key_of(new)) if new else None)
        self._cache.of(PODS).on_change(enqueue_owner("ReplicaSet", self._queue.add))
        await self._queue.run(workers=2)

    async def _reconcile(self, key: Key) -> float | None:
        rs = self._cache.of(REPLICASETS).get(*key)
        if rs is None:
            return None
        pods = [pod for pod in pods_of(self._cache, rs) if active(pod)]
        wanted = rs["spec"].get("replicas", 1)
        problem = ""
        if not deleting(rs):
            if len(pods) < wanted:
                problem = await self._create(rs, wanted - len(pods))
            elif len(pods) > wanted:
                surplus = sorted(pods, key=deletion_rank)[: len(pods) - wanted]
                await asyncio.gather(*(self._delete(rs, pod) for pod in surplus))
            pods = [pod for pod in pods_of(self._cache, rs) if active(pod)]
        return await self._report(rs, pods, problem)

    async def _create(self, rs: Obj, number: int) -> str:
        reference = owner_reference(REPLICASETS, rs)
        for _ in range(number):
            try:
                pod = await self._cache.create(PODS, pod_from_template(rs["spec"]["template"], rs, reference))
            except ApiError as error:
                if error.code in (404, 409):
                    raise
                self._recorder.event(rs, "Warning", "FailedCreate", f"Error creating: {error.message}")
                return error.message
            self._recorder.event(rs, "Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        return ""

    async def _delete(self, rs: Obj, pod: Obj) -> None:
        await self._cache.delete(PODS, pod)
        self._recorder.event(rs, "Normal", "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")

    async def _report(self, rs: Obj, pods: list[Obj], problem: str) -> float | None:
        waits = [available_in(pod, rs["spec"].get("minReadySeconds", 0)) for pod in pods]
        labels = (rs["spec"]["template"].get("metadata") or {}).get("labels") or {}
        status: Obj = {
            "replicas": len(pods),
            "fullyLabeledReplicas": sum(
                labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in pods
            ),
            "readyReplicas": sum(map(ready, pods)),
            "availableReplicas": sum(wait == 0 for wait in waits),
            "observedGeneration": rs["metadata"].get("generation", 0),
        }
        old = rs.get("status") or {}
        conditions = [each for each in old.get("conditions") or [] if each["type"] != "ReplicaFailure"]
        if problem:
            failure = {
                "type": "ReplicaFailure",
                "status": "True",
                "reason": "FailedCreate",
                "message": problem,
            }
            conditions = with_condition(list(old.get("conditions") or []), failure)
        if conditions or old.get("conditions"):
            status["conditions"] = conditions
        if any(old.get(name, 0 if name != "conditions" else None) != value for name, value in status.items()):
            await self._cache.patch(REPLICASETS, rs, {"status": status}, sub="status")
        later = [wait for wait in waits if wait]
        if problem:
            later.append(5.0)
        return min(later) if later else None


def deletion_rank(pod: Obj) -> tuple[bool, int, bool, str]:
    """Smallest first to go: unassigned, not yet running, not ready, then the youngest (names break ties)."""
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}
    since = pod["metadata"].get("creationTimestamp", "")
    inverted = "".join(chr(255 - ord(each)) for each in since)
    return (
        bool(pod["spec"].get("nodeName")),
        phases.get((pod.get("status") or {}).get("phase", ""), 0),
        ready(pod),
        inverted,
    )
