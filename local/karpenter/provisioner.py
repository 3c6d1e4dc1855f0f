"""The provisioner: gathers pending pods, simulates, makes NodeClaims."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

import aiohttp

from local.client.api import ApiError
from local.client.events import Recorder
from local.client.informer import Cache
from local.client.instances import INSTANCE_TYPES
from local.client.kinds import NODECLAIMS, NODEPOOLS, NODES, PODS, Obj
from local.client.objects import condition, deleting, is_true
from local.client.placement import pod_requests
from local.client.quantity import Resources, add_resources
from local.karpenter.claims import NODEPOOL, claim_from, types_of
from local.karpenter.provisioning import OVERHEAD, Draft, plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timings:
    """How long things take, in seconds. Defaults are those of the demo; a cloud's are in the comments."""

    launch: float = 0.5  # EC2: some seconds
    batch: float = 0.1  # Karpenter: 1 s idle, 10 s at most
    offering_backoff: float = 10.0  # Karpenter: 180 s
    registration_timeout: float = 900.0


class Unavailable:
    """Offerings (pool, instance type) that lacked capacity a moment ago."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[tuple[str, str], float] = {}

    def mark(self, pool: str, types: list[str]) -> None:
        for each in types:
            self._until[(pool, each)] = time.monotonic() + self._seconds

    def has(self, pool: str, kind: str) -> bool:
        return self._until.get((pool, kind), 0.0) > time.monotonic()

    def next_end(self) -> float | None:
        """When (`time.monotonic`) the first of them may be tried again."""
        now = time.monotonic()
        return min((each for each in self._until.values() if each > now), default=None)


class Provisioner:
    """One loop, woken by changes of pods, pools, claims and nodes."""

    def __init__(self, cache: Cache, recorder: Recorder, timings: Timings, unavailable: Unavailable) -> None:
        self._cache = cache
        self._recorder = recorder
        self._timings = timings
        self._unavailable = unavailable
        self._wake = asyncio.Event()
        self.nominations: dict[str, str] = {}
        """Pod uid -> NodeClaim name."""
        self._told: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        await self._cache.sync(PODS, NODES, NODEPOOLS, NODECLAIMS)
        self._cache.of(PODS).on_change(self._pod_changed)
        for resource in (NODEPOOLS, NODECLAIMS, NODES):
            self._cache.of(resource).on_change(lambda _old, _new: self._wake.set())
        due: float | None = None
        while True:
            try:
                left = None if due is None else max(0.0, due - time.monotonic())
                await asyncio.wait_for(self._wake.wait(), left)
            except TimeoutError:
                pass
            await asyncio.sleep(self._timings.batch)
            self._wake.clear()
            # Before the look: what this one finds closed may be open again by its end.
            due = self._unavailable.next_end()
            try:
                await self._provision()
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("provisioning: %s", error)
                await asyncio.sleep(1.0)
                self._wake.set()

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is None and old is not None:
            self.nominations.pop(old["metadata"]["uid"], None)
        if new is None or pending(new):
            self._wake.set()

    def nominated(self, claim: str) -> bool:
        """Is a pending pod meant for this claim?"""
        waiting = {pod["metadata"]["uid"] for pod in self._cache.of(PODS).items() if pending(pod)}
        return any(name == claim and uid in waiting for uid, name in self.nominations.items())

    async def _provision(self) -> None:
        pods = [pod for pod in self._cache.of(PODS).items() if pending(pod)]
        if not pods:
            return
        claims = {
            claim["metadata"]["name"]: claim
            for claim in self._cache.of(NODECLAIMS).items()
            if not deleting(claim)
        }
        pools = list(self._cache.of(NODEPOOLS).items())
        used = self._used()
        flying = self._flying(claims, pools, pods, used)
        in_flight = {draft.claim for draft in flying}
        open_pods = [pod for pod in pods if self.nominations.get(pod["metadata"]["uid"]) not in in_flight]
        open_pods.sort(key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
        bought = {
            (claim.get("status") or {}).get("nodeName")
            for claim in claims.values()
            if is_true(claim, "Initialized")
        }
        nodes = [
            node
            for node in self._cache.of(NODES).items()
            if NODEPOOL not in (node["metadata"].get("labels") or {}) or node["metadata"]["name"] in bought
        ]
        decided = plan(open_pods, pools, flying, nodes, used, self._spent())
        for pod, _, claim in decided.nominated:
            self._nominate(pod, claim)
        for draft in decided.buy:
            draft.types = [
                kind
                for kind in draft.types
                if not self._unavailable.has(draft.pool["metadata"]["name"], kind.name)
            ]
            if not draft.types:
                for pod in draft.pods:
                    self._refuse(pod, self._no_offering(draft))
                continue
            made = await self._cache.create(NODECLAIMS, claim_from(draft))
            log.info("created nodeclaim %s for %d pods", made["metadata"]["name"], len(draft.pods))
            for pod in draft.pods:
                self._nominate(pod, made["metadata"]["name"])
        for pod, reason in decided.refused:
            self._refuse(pod, reason)

    @staticmethod
    def _no_offering(draft: Draft) -> str:
        name = draft.pool["metadata"]["name"]
        return (
            f'Failed to schedule pod, incompatible with nodepool "{name}", {OVERHEAD}, '
            "no instance type has the required offering"
        )

    def _nominate(self, pod: Obj, claim: str) -> None:
        self.nominations[pod["metadata"]["uid"]] = claim
        self._recorder.event(pod, "Normal", "Nominated", f"Pod should schedule on: nodeclaim/{claim}")

    def _refuse(self, pod: Obj, reason: str) -> None:
        key = (pod["metadata"]["uid"], reason)
        # The real recorder keeps the same event back for five minutes; here a minute is long.
        if time.monotonic() - self._told.get(key, -1e9) > 60:
            self._told[key] = time.monotonic()
            self._recorder.event(pod, "Warning", "FailedScheduling", reason)

    def _used(self) -> dict[str, Resources]:
        result: dict[str, list[Resources]] = {}
        for pod in self._cache.of(PODS).items():
            node = pod["spec"].get("nodeName")
            if node and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                result.setdefault(node, []).append(pod_requests(pod))
        return {node: add_resources(many) for node, many in result.items()}

    def _flying(
        self, claims: dict[str, Obj], pools: list[Obj], pods: list[Obj], used: dict[str, Resources]
    ) -> list[Draft]:
        """Claims that are not initialized yet, with what is meant for them already."""
        result = []
        for name, claim in claims.items():
            pool = next(
                (
                    each
                    for each in pools
                    if each["metadata"]["name"] == claim["metadata"]["labels"].get(NODEPOOL)
                ),
                None,
            )
            if pool is None or is_true(claim, "Initialized"):
                continue
            labels = claim["metadata"]["labels"]
            launched = labels.get("node.kubernetes.io/instance-type")
            names = [launched] if launched else types_of(claim)
            draft = Draft(
                pool,
                [INSTANCE_TYPES[each] for each in names if each in INSTANCE_TYPES],
                [labels.get("topology.kubernetes.io/zone", "us-east-2b")],
                [labels.get("karpenter.sh/capacity-type", "on-demand")],
                claim=name,
            )
            meant = [pod for pod in pods if self.nominations.get(pod["metadata"]["uid"]) == name]
            node = (claim.get("status") or {}).get("nodeName", "")
            draft.requests = add_resources([*map(pod_requests, meant), used.get(node, {})])
            result.append(draft)
        return result

    def _spent(self) -> dict[str, Resources]:
        result: dict[str, list[Resources]] = {}
        for claim in self._cache.of(NODECLAIMS).items():
            labels = claim["metadata"].get("labels") or {}
            kind = labels.get("node.kubernetes.io/instance-type") or next(iter(types_of(claim)), "")
            if kind in INSTANCE_TYPES:
                result.setdefault(labels.get(NODEPOOL, ""), []).append(INSTANCE_TYPES[kind].capacity())
        return {pool: add_resources(many) for pool, many in result.items()}


def pending(pod: Obj) -> bool:
    """Marked unschedulable by the scheduler, and worth a node."""
    if pod["spec"].get("nodeName") or deleting(pod):
        return False
    entry = condition(pod, "PodScheduled")
    return entry is not None and entry["status"] == "False" and entry.get("reason") == "Unschedulable"
