"""The scheduler: binds pending pods to nodes that take them, or says why none does."""

from __future__ import annotations

import asyncio
import logging
import time
from decimal import Decimal

import aiohttp

from local.client.api import ApiError
from local.client.events import Recorder
from local.client.informer import Cache
from local.client.kinds import NODES, PODS, Key, Obj
from local.client.objects import condition, deleting, with_condition
from local.client.placement import Refusal, node_refusal, pod_requests, refusal_message
from local.client.quantity import Resources, add_resources, parse_resources
from local.client.queue import Queue

log = logging.getLogger(__name__)
NAME = "default-scheduler"


class Scheduler:
    """Event driven: a pod is looked at when it appears, and again when a node or a finished pod may have made
    room.
    """

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self._cache = cache
        self._recorder = recorder
        self._queue: Queue[Key] = Queue("scheduler", self._schedule)
        self._unschedulable: set[Key] = set()
        self._assumed: dict[str, tuple[str, Resources]] = {}
        self._told: dict[str, float] = {}

    async def run(self) -> None:
        nodes, pods = self._cache.of(NODES), self._cache.of(PODS)
        await self._cache.sync(NODES, PODS)
        nodes.on_change(self._node_changed)
        pods.on_change(self._pod_changed)
        await self._queue.run()

    def _node_changed(self, old: Obj | None, new: Obj | None) -> None:
        def essence(node: Obj | None) -> object:
            if node is None:
                return None
            spec, status = node.get("spec") or {}, node.get("status") or {}
            return (
                spec.get("taints"),
                spec.get("unschedulable"),
                node["metadata"].get("labels"),
                status.get("allocatable"),
            )

        if essence(old) != essence(new):
            self._retry_all()

    def _retry_all(self) -> None:
        waiting, self._unschedulable = self._unschedulable, set()
        for key in waiting:
            self._queue.add(key)

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        assert pod is not None
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        if new is None:
            self._unschedulable.discard(key)
            self._assumed.pop(pod["metadata"]["uid"], None)
            self._told.pop(pod["metadata"]["uid"], None)
            self._retry_all()
        elif new["spec"].get("nodeName"):
            self._assumed.pop(new["metadata"]["uid"], None)
            if _ended(new) and not (old and _ended(old)):
                self._retry_all()
        elif (
            old is None
            or old["spec"] != new["spec"]
            or old["metadata"].get("labels") != new["metadata"].get("labels")
        ):
            self._queue.add(key)

    async def _schedule(self, key: Key) -> float | None:
        pod = self._cache.of(PODS).get(*key)
        if (
            pod is None
            or pod["spec"].get("nodeName")
            or deleting(pod)
            or pod["metadata"]["uid"] in self._assumed
        ):
            return None
        if pod["spec"].get("schedulerName", NAME) != NAME or pod["spec"].get("schedulingGates"):
            return None
        used = self._used()
        refusals: dict[str, Refusal] = {}
        best: tuple[Decimal, str] | None = None
        for node in self._cache.of(NODES).items():
            name = node["metadata"]["name"]
            refusal = node_refusal(pod, node, used.get(name, {}))
            if refusal:
                refusals[name] = refusal
                continue
            load = (_load(node, used.get(name, {})), name)
            if best is None or load < best:
                best = load
        if best is None:
            # Before anything is awaited: a node that changes meanwhile has to bring the pod back.
            self._unschedulable.add(key)
            await self._refuse(pod, refusal_message(refusals))
            return None
        await self._bind(pod, best[1])
        return None

    def _used(self) -> dict[str, Resources]:
        result: dict[str, list[Resources]] = {}
        for pod in self._cache.of(PODS).items():
            node = pod["spec"].get("nodeName")
            if node and not _ended(pod):
                result.setdefault(node, []).append(pod_requests(pod))
        for node, requests in self._assumed.values():
            result.setdefault(node, []).append(requests)
        return {node: add_resources(many) for node, many in result.items()}

    async def _bind(self, pod: Obj, node: str) -> None:
        meta = pod["metadata"]
        # Assumed until the watch shows the pod bound: the next decision must count it already.
        self._assumed[meta["uid"]] = (node, pod_requests(pod))
        binding = {
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        path = PODS.path(meta["namespace"], meta["name"], "binding")
        try:
            await self._cache.api.request(
                "POST", path, body={"apiVersion": "v1", "kind": "Binding", **binding}
            )
        except ApiError as error:
            self._assumed.pop(meta["uid"], None)
            if error.not_found or error.conflict:
                return
            raise
        except (aiohttp.ClientError, OSError, asyncio.CancelledError):
            self._assumed.pop(meta["uid"], None)
            raise
        text = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        self._recorder.event(pod, "Normal", "Scheduled", text)

    async def _refuse(self, pod: Obj, message: str) -> None:
        uid = pod["metadata"]["uid"]
        entry = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
        }
        old = condition(pod, "PodScheduled")
        same = old is not None and old.get("message") == message
        if not same:
            conditions = with_condition(list((pod.get("status") or {}).get("conditions") or []), entry)
            try:
                await self._cache.patch(PODS, pod, {"status": {"conditions": conditions}}, sub="status")
            except ApiError as error:
                if error.not_found:
                    return
                raise
        # Many nodes changing at once try a pod many times; one event in a while says enough.
        if not same or time.monotonic() - self._told.get(uid, 0.0) > 30:
            self._told[uid] = time.monotonic()
            self._recorder.event(pod, "Warning", "FailedScheduling", message)


def _ended(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _load(node: Obj, used: Resources) -> Decimal:
    """Share of CPU and memory in use: the least allocated node is taken."""
    allocatable = parse_resources((node.get("status") or {}).get("allocatable"))
    shares = [
        used.get(name, Decimal(0)) / allocatable[name] for name in ("cpu", "memory") if allocatable.get(name)
    ]
    return sum(shares, Decimal(0))
