"""Deployments: one ReplicaSet a template, rolled from the old ones to the new one."""

from __future__ import annotations

from typing import Any

from local.client.api import ApiError
from local.client.events import Recorder
from local.client.informer import Cache, key_of
from local.client.kinds import DEPLOYMENTS, PODS, REPLICASETS, Key, Obj
from local.client.objects import deleting, owner_reference, parse_stamp
from local.client.queue import Queue
from local.controllers.deployment_status import deployment_status, progress_left
from local.controllers.pods import ended, enqueue_owner, owned, pods_of
from local.controllers.rollout import Set, bare_template, bounds, grow, shrink, template_hash

REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"


class Deployments:
    """The Deployment controller."""

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self._cache = cache
        self._recorder = recorder
        self._queue: Queue[Key] = Queue("deployment", self._reconcile)

    async def run(self) -> None:
        await self._cache.sync(DEPLOYMENTS, REPLICASETS, PODS)
        self._cache.of(DEPLOYMENTS).on_change(lambda _, new: self._queue.add(key_of(new)) if new else None)
        self._cache.of(REPLICASETS).on_change(enqueue_owner("Deployment", self._queue.add))
        self._cache.of(PODS).on_change(self._pod_gone)
        await self._queue.run(workers=2)

    def _pod_gone(self, old: Obj | None, new: Obj | None) -> None:
        """Recreate waits for the old pods to be gone; a vanished pod is the only sign of that."""
        if new is not None or old is None:
            return
        for reference in old["metadata"].get("ownerReferences") or []:
            rs = self._cache.of(REPLICASETS).get(old["metadata"]["namespace"], reference["name"])
            if rs:
                enqueue_owner("Deployment", self._queue.add)(None, rs)

    async def _reconcile(self, key: Key) -> float | None:
        deployment = self._cache.of(DEPLOYMENTS).get(*key)
        if deployment is None:
            return None
        sets = sorted(owned(self._cache, REPLICASETS, deployment), key=_age_rank)
        if deleting(deployment):
            await self._report(deployment, sets, None)
            return None
        new = find_new(deployment, sets)
        if deployment["spec"].get("paused"):
            if new is not None and len(_with_pods(sets)) <= 1:
                await self._scale(
                    deployment, (_with_pods(sets) or [new])[0], deployment["spec"].get("replicas", 1)
                )
            await self._report(deployment, self._again(sets), new)
            return None
        created = False
        if new is None:
            new = await self._new_set(deployment, sets)
            created = True
            if new is None:
                return 0.05
        new = await self._revise(deployment, new, sets)
        olds = [each for each in sets if each["metadata"]["uid"] != new["metadata"]["uid"]]
        if deployment["spec"].get("strategy", {}).get("type") == "Recreate":
            await self._recreate(deployment, new, olds)
        else:
            await self._roll(deployment, new, olds)
        sets = self._again([*olds, new])
        new = next((each for each in sets if each["metadata"]["uid"] == new["metadata"]["uid"]), new)
        status = await self._report(deployment, sets, new, created=created)
        if status.get("updatedReplicas") == status.get("replicas") == deployment["spec"].get("replicas", 1):
            await self._forget_old(deployment, [each for each in sets if each is not new])
        return progress_left(deployment, status)

    def _again(self, sets: list[Obj]) -> list[Obj]:
        cached = self._cache.of(REPLICASETS)
        return [cached.get(*key_of(each)) or each for each in sets]

    # -- sets ------------------------------------------------------------------------------------------
    # ---------------

    async def _new_set(self, deployment: Obj, sets: list[Obj]) -> Obj | None:
        meta, spec = deployment["metadata"], deployment["spec"]
        collisions = (deployment.get("status") or {}).get("collisionCount") or 0
        code = template_hash(spec["template"], collisions)
        template = bare_template(spec["template"])
        template["metadata"]["labels"]["pod-template-hash"] = code
        selector = dict(spec["selector"])
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), "pod-template-hash": code}
        surge, _ = bounds(spec)
        wanted = spec.get("replicas", 1)
        running = sum(each["spec"].get("replicas", 0) for each in sets)
        recreate = (spec.get("strategy") or {}).get("type") == "Recreate"
        replicas = 0 if recreate and running else max(0, min(wanted, wanted + surge - running))
        rs = {
            "metadata": {
                "name": f"{meta['name']}-{code}",
                "namespace": meta["namespace"],
                "labels": dict(template["metadata"]["labels"]),
                "annotations": {
                    **_carried(meta.get("annotations") or {}),
                    REVISION: str(_last_revision(sets) + 1),
                    DESIRED: str(wanted),
                    MAXIMUM: str(wanted + surge),
                },
                "ownerReferences": [owner_reference(DEPLOYMENTS, deployment)],
            },
            "spec": {
                "replicas": replicas,
                "selector": selector,
                "template": template,
                **({"minReadySeconds": spec["minReadySeconds"]} if spec.get("minReadySeconds") else {}),
            },
        }
        try:
            made = await self._cache.create(REPLICASETS, rs)
        except ApiError as error:
            if not error.already_exists:
                raise
            other = await self._cache.api.get(REPLICASETS, meta["namespace"], rs["metadata"]["name"])
            if find_new(deployment, [other]) is not None:
                self._cache.of(REPLICASETS).observe(other)
                return None
            await self._cache.patch(
                DEPLOYMENTS, deployment, {"status": {"collisionCount": collisions + 1}}, sub="status"
            )
            return None
        if replicas:
            self._tell_scale(deployment, made, 0, replicas)
        return made

    async def _revise(self, deployment: Obj, new: Obj, sets: list[Obj]) -> Obj:
        """The new set has the highest revision, and the Deployment shows it."""
        others = [each for each in sets if each["metadata"]["uid"] != new["metadata"]["uid"]]
        surge, _ = bounds(deployment["spec"])
        wanted = deployment["spec"].get("replicas", 1)
        have = new["metadata"].get("annotations") or {}
        revision = max(_last_revision(others) + 1, int(have.get(REVISION, "0")))
        right = {REVISION: str(revision), DESIRED: str(wanted), MAXIMUM: str(wanted + surge)}
        if any(have.get(name) != value for name, value in right.items()):
            new = await self._cache.patch(REPLICASETS, new, {"metadata": {"annotations": right}})
        if (deployment["metadata"].get("annotations") or {}).get(REVISION) != str(revision):
            body = {"metadata": {"annotations": {REVISION: str(revision)}}}
            deployment.update(await self._cache.patch(DEPLOYMENTS, deployment, body))
        return new

    async def _forget_old(self, deployment: Obj, olds: list[Obj]) -> None:
        limit = deployment["spec"].get("revisionHistoryLimit", 10)
        empty = [
            each
            for each in olds
            if not each["spec"].get("replicas") and not (each.get("status") or {}).get("replicas")
        ]
        empty.sort(key=lambda each: int((each["metadata"].get("annotations") or {}).get(REVISION, "0")))
        for each in empty[: max(0, len(olds) - limit)]:
            await self._cache.delete(REPLICASETS, each)

    # -- strategies ------------------------------------------------------------------------------------
    # ---------------

    async def _roll(self, deployment: Obj, new: Obj, olds: list[Obj]) -> None:
        spec = deployment["spec"]
        wanted = spec.get("replicas", 1)
        surge, unavailable = bounds(spec)
        active = [each for each in olds if each["spec"].get("replicas")]
        count = grow(wanted, surge, _set(new), [_set(each) for each in active])
        if count != new["spec"].get("replicas"):
            new = await self._scale(deployment, new, count)
        for name, replicas in shrink(wanted, unavailable, _set(new), [_set(each) for each in active]).items():
            old = next(each for each in active if each["metadata"]["name"] == name)
            if replicas != old["spec"]["replicas"]:
                await self._scale(deployment, old, replicas)

    async def _recreate(self, deployment: Obj, new: Obj, olds: list[Obj]) -> None:
        for each in olds:
            if each["spec"].get("replicas"):
                await self._scale(deployment, each, 0)
        if any(not ended(pod) for each in olds for pod in pods_of(self._cache, each)):
            return
        wanted = deployment["spec"].get("replicas", 1)
        if new["spec"].get("replicas") != wanted:
            await self._scale(deployment, new, wanted)

    async def _scale(self, deployment: Obj, rs: Obj, replicas: int) -> Obj:
        before = rs["spec"].get("replicas", 0)
        if before == replicas:
            return rs
        surge, _ = bounds(deployment["spec"])
        wanted = deployment["spec"].get("replicas", 1)
        notes = {DESIRED: str(wanted), MAXIMUM: str(wanted + surge)}
        body = {"metadata": {"annotations": notes}, "spec": {"replicas": replicas}}
        made = await self._cache.patch(REPLICASETS, rs, body)
        self._tell_scale(deployment, made, before, replicas)
        return made

    def _tell_scale(self, deployment: Obj, rs: Obj, before: int, after: int) -> None:
        word = "up" if after > before else "down"
        text = f"Scaled {word} replica set {rs['metadata']['name']} from {before} to {after}"
        self._recorder.event(deployment, "Normal", "ScalingReplicaSet", text)

    async def _report(
        self, deployment: Obj, sets: list[Obj], new: Obj | None, *, created: bool = False
    ) -> Obj:
        status = deployment_status(deployment, sets, new, created=created)
        old = {name: value for name, value in (deployment.get("status") or {}).items() if name in status}
        if old != status and any(old.get(name, 0) != value for name, value in status.items()):
            await self._cache.patch(DEPLOYMENTS, deployment, {"status": status}, sub="status")
        return status


def find_new(deployment: Obj, sets: list[Obj]) -> Obj | None:
    """The ReplicaSet whose template is the Deployment's, the oldest if there are several."""
    wanted = bare_template(deployment["spec"]["template"])
    for each in sets:
        if bare_template(each["spec"]["template"]) == wanted:
            return each
    return None


def _set(rs: Obj) -> Set:
    available = (rs.get("status") or {}).get("availableReplicas", 0)
    return Set(
        rs["metadata"]["name"], rs["spec"].get("replicas", 0), min(available, rs["spec"].get("replicas", 0))
    )


def _with_pods(sets: list[Obj]) -> list[Obj]:
    return [each for each in sets if each["spec"].get("replicas")]


def _age_rank(rs: Obj) -> tuple[Any, str]:
    return parse_stamp(rs["metadata"]["creationTimestamp"]), rs["metadata"]["name"]


def _last_revision(sets: list[Obj]) -> int:
    return max(
        (int((each["metadata"].get("annotations") or {}).get(REVISION, "0")) for each in sets), default=0
    )


def _carried(annotations: dict[str, str]) -> dict[str, str]:
    """A Deployment's annotations that its sets carry too."""
    skipped = {"kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED, MAXIMUM}
    return {key: value for key, value in annotations.items() if key not in skipped}
