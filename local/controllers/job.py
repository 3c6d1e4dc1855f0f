"""Jobs: pods until enough of them succeeded, or too many failed, or time is up."""

from __future__ import annotations

import asyncio

from local.client.events import Recorder
from local.client.informer import Cache, key_of
from local.client.kinds import JOBS, PODS, Key, Obj
from local.client.objects import age, deleting, is_true, owner_reference, parse_stamp, stamp, with_condition
from local.client.queue import Queue
from local.controllers.pods import active, ended, enqueue_owner, pod_from_template, pods_of, ready

TRACKING = "batch.kubernetes.io/job-tracking"
"""Finalizer that keeps an ended pod until the Job has counted it, so that none is counted twice or lost."""


class Jobs:
    """The Job controller (completion mode NonIndexed)."""

    def __init__(self, cache: Cache, recorder: Recorder, backoff_base: float) -> None:
        self._cache = cache
        self._recorder = recorder
        self._base = backoff_base
        self._queue: Queue[Key] = Queue("job", self._reconcile)

    async def run(self) -> None:
        await self._cache.sync(JOBS, PODS)
        self._cache.of(JOBS).on_change(lambda _, new: self._queue.add(key_of(new)) if new else None)
        self._cache.of(PODS).on_change(enqueue_owner("Job", self._queue.add))
        self._cache.of(PODS).on_change(self._release_stray)
        await self._queue.run(workers=2)

    def _release_stray(self, _old: Obj | None, new: Obj | None) -> None:
        """A pod whose Job is gone must not be kept by the Job's finalizer."""
        if new is None or TRACKING not in (new["metadata"].get("finalizers") or []) or not deleting(new):
            return
        enqueue_owner("Job", self._queue.add)(None, new)

    async def _reconcile(self, key: Key) -> float | None:
        job = self._cache.of(JOBS).get(*key)
        if job is None or deleting(job):
            await self._release(key, job)
            return None
        if finished(job):
            await self._untrack(
                [
                    pod
                    for pod in pods_of(self._cache, job)
                    if TRACKING in (pod["metadata"].get("finalizers") or [])
                ]
            )
            return await self._expire(job)
        pods = pods_of(self._cache, job)
        status = dict(job.get("status") or {})
        counted = await self._count(job, pods, status)
        running = [pod for pod in pods if active(pod)]
        spec = job["spec"]
        limit = spec.get("activeDeadlineSeconds")
        over_time = limit is not None and status.get("startTime") and age(status["startTime"]) >= limit
        verdict = self._verdict(job, status, bool(over_time))
        if verdict:
            await self._finish(job, pods, running, status, verdict)
            await self._untrack(counted)
            return None
        wait = None
        if spec.get("suspend"):
            await asyncio.gather(*(self._cache.delete(PODS, pod) for pod in running))
            running = []
        else:
            wait = await self._adjust(job, running, status)
        running = [pod for pod in pods_of(self._cache, job) if active(pod)]
        status.update(
            active=len(running),
            ready=sum(map(ready, running)),
            terminating=sum(deleting(pod) and not ended(pod) for pod in pods_of(self._cache, job)),
        )
        status.setdefault("startTime", stamp())
        await self._write(job, status)
        await self._untrack(counted)
        if limit is not None:
            left = max(0.05, limit - age(status["startTime"]))
            wait = left if wait is None else min(wait, left)
        return wait

    # -- counting --------------------------------------------------------------------------------------
    # ---------------

    async def _count(self, job: Obj, pods: list[Obj], status: Obj) -> list[Obj]:
        """Add newly ended pods to the counters in `status`; returns the pods whose finalizer may go once it
        is written.
        """
        seen = status.get("uncountedTerminatedPods") or {}
        before = {*(seen.get("succeeded") or []), *(seen.get("failed") or [])}
        new: dict[str, list[str]] = {"succeeded": [], "failed": []}
        counted = []
        for pod in pods:
            if TRACKING not in (pod["metadata"].get("finalizers") or []):
                continue
            if not ended(pod) and not (deleting(pod) and not pod["spec"].get("nodeName")):
                continue
            counted.append(pod)
            which = "succeeded" if pod["status"].get("phase") == "Succeeded" else "failed"
            new[which].append(pod["metadata"]["uid"])
            if pod["metadata"]["uid"] not in before:
                status[which] = status.get(which, 0) + 1
        status["uncountedTerminatedPods"] = {name: uids for name, uids in new.items() if uids}
        return counted

    async def _untrack(self, pods: list[Obj]) -> None:
        for pod in pods:
            finalizers = [each for each in pod["metadata"].get("finalizers") or [] if each != TRACKING]
            await self._cache.patch(PODS, pod, {"metadata": {"finalizers": finalizers or None}})

    async def _release(self, key: Key, job: Obj | None) -> None:
        for pod in list(self._cache.of(PODS).items(key[0])):
            owners = pod["metadata"].get("ownerReferences") or []
            mine = any(each["kind"] == "Job" and each["name"] == key[1] for each in owners)
            if mine and TRACKING in (pod["metadata"].get("finalizers") or []):
                await self._untrack([pod])

    # -- deciding --------------------------------------------------------------------------------------
    # ---------------

    def _verdict(self, job: Obj, status: Obj, over_time: bool) -> tuple[str, str, str] | None:
        """(condition, reason, message) when the Job is over."""
        spec = job["spec"]
        completions = spec.get("completions")
        succeeded, failed = status.get("succeeded", 0), status.get("failed", 0)
        if (completions is None and succeeded and not status.get("active", 0)) or (
            completions is not None and succeeded >= completions
        ):
            return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
        if failed > spec.get("backoffLimit", 6) or self._restarts(job) > spec.get("backoffLimit", 6):
            return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        if over_time:
            return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
        return None

    def _restarts(self, job: Obj) -> int:
        """Restarts of containers count as failures where the pods' policy is OnFailure."""
        if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
            return 0
        return sum(
            each.get("restartCount", 0)
            for pod in pods_of(self._cache, job)
            if active(pod)
            for each in (pod.get("status") or {}).get("containerStatuses") or []
        )

    async def _adjust(self, job: Obj, running: list[Obj], status: Obj) -> float | None:
        spec = job["spec"]
        parallelism = spec.get("parallelism", 1)
        completions = spec.get("completions")
        wanted = parallelism
        if completions is not None:
            wanted = min(parallelism, completions - status.get("succeeded", 0))
        elif status.get("succeeded"):
            wanted = len(running)
        if len(running) > wanted:
            surplus = sorted(running, key=lambda pod: (ready(pod), pod["metadata"]["creationTimestamp"]))[
                : len(running) - wanted
            ]
            await asyncio.gather(*(self._cache.delete(PODS, pod) for pod in surplus))
            return None
        missing = wanted - len(running)
        if missing <= 0:
            return None
        delay = self._delay(job, status)
        if delay > 0:
            return delay
        for _ in range(missing):
            await self._create(job)
        return None

    def _delay(self, job: Obj, status: Obj) -> float:
        """Seconds until the next pod may be made after failures: base, doubled with each, ten minutes at
        most.
        """
        failed = status.get("failed", 0)
        if not failed:
            return 0.0
        ends = [
            each["state"]["terminated"]["finishedAt"]
            for pod in pods_of(self._cache, job)
            if (pod.get("status") or {}).get("phase") == "Failed"
            for each in pod["status"].get("containerStatuses") or []
            if "terminated" in each.get("state", {})
        ]
        if not ends:
            return 0.0
        last = max(ends, key=parse_stamp)
        return float(min(self._base * 2 ** (failed - 1), 600.0) - age(last))

    async def _create(self, job: Obj) -> None:
        meta = job["metadata"]
        pod = pod_from_template(job["spec"]["template"], job, owner_reference(JOBS, job))
        pod["metadata"]["finalizers"] = [*(pod["metadata"].get("finalizers") or []), TRACKING]
        for prefix in ("", "batch.kubernetes.io/"):
            pod["metadata"]["labels"][f"{prefix}controller-uid"] = meta["uid"]
            pod["metadata"]["labels"][f"{prefix}job-name"] = meta["name"]
        made = await self._cache.create(PODS, pod)
        self._recorder.event(job, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")

    # -- ending ----------------------------------------------------------------------------------------
    # ---------------

    async def _finish(
        self, job: Obj, pods: list[Obj], running: list[Obj], status: Obj, verdict: tuple[str, str, str]
    ) -> None:
        kind, reason, message = verdict
        await asyncio.gather(*(self._cache.delete(PODS, pod) for pod in running))
        conditions = list(status.get("conditions") or [])
        early = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
        for each in (early, kind):
            entry = {
                "type": each,
                "status": "True",
                "reason": reason,
                "message": message,
                "lastProbeTime": stamp(),
            }
            conditions = with_condition(conditions, entry)
        if kind == "Failed":
            status["failed"] = status.get("failed", 0) + len(running)
        else:
            status["completionTime"] = stamp()
        status.update(active=0, ready=0, terminating=0, conditions=conditions)
        status.setdefault("startTime", stamp())
        status["uncountedTerminatedPods"] = {}
        await self._write(job, status)
        if kind == "Complete":
            self._recorder.event(job, "Normal", "Completed", "Job completed")
        else:
            self._recorder.event(job, "Warning", reason, message)

    async def _expire(self, job: Obj) -> float | None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return None
        end = next(
            each["lastTransitionTime"]
            for each in job["status"]["conditions"]
            if each["type"] in ("Complete", "Failed") and each["status"] == "True"
        )
        left = ttl - age(end)
        if left > 0:
            return float(left)
        await self._cache.delete(JOBS, job, propagation="Foreground")
        return None

    async def _write(self, job: Obj, status: Obj) -> None:
        old = job.get("status") or {}
        if any(old.get(name) != value for name, value in status.items()):
            uncounted = status.get("uncountedTerminatedPods") or {}
            body = {
                **status,
                "uncountedTerminatedPods": {name: uncounted.get(name) for name in ("succeeded", "failed")},
            }
            await self._cache.patch(JOBS, job, {"status": body}, sub="status")


def finished(job: Obj) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")
