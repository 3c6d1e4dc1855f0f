"""A NodeClaim's way up: launched, registered, initialized. Each step reads what is, does what is missing."""

from __future__ import annotations

import logging
import uuid

from local.client.api import ApiError
from local.client.events import Recorder
from local.client.informer import Cache, key_of
from local.client.instances import INSTANCE_TYPES, NEURON
from local.client.kinds import NODECLAIMS, NODEPOOLS, NODES, Key, Obj
from local.client.objects import age, condition, deleting, is_true, owner_reference
from local.client.quantity import format_resources, parse_resources
from local.client.queue import Queue
from local.karpenter.claims import NODEPOOL, TERMINATION, faults_of, set_condition, types_of
from local.karpenter.provisioner import Timings, Unavailable
from local.karpenter.requirements import Requirement, choice
from local.karpenter.termination import Termination

log = logging.getLogger(__name__)
UNREGISTERED = "karpenter.sh/unregistered"
EPHEMERAL = (
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.cloudprovider.kubernetes.io/uninitialized",
)


class Lifecycle:
    """Reconciles NodeClaims."""

    def __init__(
        self,
        cache: Cache,
        recorder: Recorder,
        timings: Timings,
        unavailable: Unavailable,
        termination: Termination,
    ) -> None:
        self._cache = cache
        self._recorder = recorder
        self._timings = timings
        self._unavailable = unavailable
        self._termination = termination
        self._queue: Queue[Key] = Queue("nodeclaim", self._reconcile)
        self._refused: dict[str, int] = {}

    async def run(self) -> None:
        await self._cache.sync(NODECLAIMS, NODES, NODEPOOLS)
        self._cache.of(NODECLAIMS).on_change(lambda _, new: self._queue.add(key_of(new)) if new else None)
        self._cache.of(NODES).on_change(self._node_changed)
        await self._queue.run(workers=2)

    def _node_changed(self, old: Obj | None, new: Obj | None) -> None:
        provider = ((new or old or {}).get("spec") or {}).get("providerID")
        for claim in self._cache.of(NODECLAIMS).items():
            if provider and (claim.get("status") or {}).get("providerID") == provider:
                self._queue.add(key_of(claim))

    async def _reconcile(self, key: Key) -> float | None:
        claim = self._cache.of(NODECLAIMS).get(*key)
        if claim is None:
            return None
        node = self._node_of(claim)
        if deleting(claim):
            return await self._termination.finish(claim, node)
        if node is not None and deleting(node):
            await self._cache.delete(NODECLAIMS, claim)
            return None
        faults = faults_of(claim)
        if faults.get("spot_interrupted"):
            await self._interrupt(claim, node)
            return None
        if not is_true(claim, "Launched"):
            return await self._launch(claim, faults)
        if not is_true(claim, "Registered"):
            return await self._register(claim, node)
        if not is_true(claim, "Initialized"):
            return await self._initialize(claim, node)
        if node is None:
            # The node of a finished claim is gone: so is the instance.
            await self._cache.delete(NODECLAIMS, claim)
        return None

    def _node_of(self, claim: Obj) -> Obj | None:
        provider = (claim.get("status") or {}).get("providerID")
        if provider:
            for node in self._cache.of(NODES).items():
                if (node.get("spec") or {}).get("providerID") == provider:
                    return node
        return None

    async def _write(self, claim: Obj, status: Obj) -> Obj:
        return await self._cache.patch(NODECLAIMS, claim, {"status": status}, sub="status")

    async def _condition(
        self, claim: Obj, kind: str, status: str, reason: str = "", message: str = "", **more: object
    ) -> None:
        old = condition(claim, kind)
        if (
            old
            and not more
            and (old["status"], old["reason"], old["message"]) == (status, reason or kind, message)
        ):
            return
        await self._write(claim, {**more, "conditions": set_condition(claim, kind, status, reason, message)})

    # -- launch ----------------------------------------------------------------------------------------
    # ---------------

    async def _launch(self, claim: Obj, faults: Obj) -> float | None:
        if condition(claim, "Launched") is None:
            await self._condition(
                claim, "Launched", "Unknown", "AwaitingReconciliation", "object is awaiting reconciliation"
            )
            return float(faults.get("launch_seconds", self._timings.launch))
        wait = float(faults.get("launch_seconds", self._timings.launch))
        since = age(claim["metadata"].get("creationTimestamp"))
        if since < wait - 1.0:
            # creationTimestamp has whole seconds; a wake-up for another reason must not shorten
            # the launch much.
            return wait - since
        pool = claim["metadata"]["labels"].get(NODEPOOL, "")
        if self._lacks_capacity(pool, faults):
            await self._no_capacity(claim, pool)
            return None
        name = types_of(claim)[0]
        kind = INSTANCE_TYPES[name]
        requirements = [Requirement.parse(each) for each in claim["spec"]["requirements"]]
        zone = choice(
            requirements, "topology.kubernetes.io/zone", ("us-east-2b", "us-east-2a", "us-east-2c")
        )[0]
        offered = choice(requirements, "karpenter.sh/capacity-type", ("reserved", "spot", "on-demand"))
        asked = any(each.key == "karpenter.sh/capacity-type" for each in requirements)
        labels = {
            **kind.labels(),
            "karpenter.sh/capacity-type": offered[0] if asked else "on-demand",
            "topology.kubernetes.io/zone": zone,
            "topology.kubernetes.io/region": zone[:-1],
            # Requirements that leave one value only are labels of the node.
            **{
                each.key: each.values[0]
                for each in requirements
                if each.operator == "In" and len(each.values) == 1
            },
        }
        instance = f"i-0{uuid.uuid4().hex[:16]}"
        # Labels first: the kubelet acts on the condition, and reads the instance type from the labels.
        claim = await self._cache.patch(NODECLAIMS, claim, {"metadata": {"labels": labels}})
        await self._condition(
            claim,
            "Launched",
            "True",
            providerID=f"aws:///{zone}/{instance}",
            imageID="ami-0a1b2c3d4e5f67890",
            capacity=format_resources(kind.capacity()),
            allocatable=format_resources(kind.allocatable()),
        )
        return 0.05

    def _lacks_capacity(self, pool: str, faults: Obj) -> bool:
        found = self._cache.of(NODEPOOLS).get("", pool)
        # The pool's knob counts as it is now, not as it was when the claim was made.
        knob = (faults_of(found) if found else faults).get("insufficient_capacity")
        if knob is True:
            return True
        if not knob or not isinstance(knob, int):
            self._refused.pop(pool, None)
            return False
        self._refused[pool] = self._refused.get(pool, 0) + 1
        return self._refused[pool] <= knob

    async def _no_capacity(self, claim: Obj, pool: str) -> None:
        types = types_of(claim)
        meta = claim["metadata"]
        text = (
            f"NodeClaim {meta['name']} event: creating instance, insufficient capacity, with fleet error(s), "
            f"InsufficientInstanceCapacity: We currently do not have sufficient {types[0]} capacity in the "
            "Availability Zone you requested (us-east-2b). Our system will be working on provisioning "
            f"additional capacity. You can currently get {types[0]} capacity by not specifying an "
            "Availability Zone in your request or choosing us-east-2a, us-east-2c."
        )
        self._recorder.event(claim, "Warning", "InsufficientCapacityError", text)
        self._unavailable.mark(pool, types)
        await self._cache.delete(NODECLAIMS, claim)

    # -- registration and initialization
    # --------------------------------------------------------------------------------

    async def _register(self, claim: Obj, node: Obj | None) -> float | None:
        if node is None:
            await self._condition(
                claim, "Registered", "Unknown", "NodeNotFound", "Node not registered with cluster"
            )
            launched = condition(claim, "Launched") or {}
            left = self._timings.registration_timeout - age(launched.get("lastTransitionTime"))
            if left <= 0:
                log.warning("nodeclaim %s did not register in time", claim["metadata"]["name"])
                await self._cache.delete(NODECLAIMS, claim)
                return None
            return left + 0.5
        meta = node["metadata"]
        taints = [each for each in node["spec"].get("taints") or [] if each["key"] != UNREGISTERED]
        body = {
            "metadata": {
                "resourceVersion": meta["resourceVersion"],
                "labels": {**claim["metadata"]["labels"], "karpenter.sh/registered": "true"},
                "annotations": {
                    "karpenter.sh/nodepool-hash": claim["metadata"]["annotations"].get(
                        "karpenter.sh/nodepool-hash"
                    )
                },
                "finalizers": sorted({*(meta.get("finalizers") or []), TERMINATION}),
                "ownerReferences": [owner_reference(NODECLAIMS, claim, controller=False)],
            },
            "spec": {"taints": taints or None},
        }
        await self._cache.patch(NODES, node, body)
        await self._condition(claim, "Registered", "True", nodeName=meta["name"])
        return 0.02

    async def _initialize(self, claim: Obj, node: Obj | None) -> float | None:
        reason, message = self._obstacle(claim, node)
        if reason:
            await self._condition(claim, "Initialized", "Unknown", reason, message)
            return None
        assert node is not None
        await self._cache.patch(NODES, node, {"metadata": {"labels": {"karpenter.sh/initialized": "true"}}})
        await self._condition(claim, "Initialized", "True", allocatable=node["status"]["allocatable"])
        return 0.02

    def _obstacle(self, claim: Obj, node: Obj | None) -> tuple[str, str]:
        """Why the node is not initialized yet, in Karpenter's words; two empty strings when it is."""
        if node is None:
            return "NodeNotFound", "Node not registered with cluster"
        if not is_true(node, "Ready"):
            return "NodeNotReady", "Node status is NotReady"
        taints = node["spec"].get("taints") or []
        startup = {(each["key"], each["effect"]) for each in claim["spec"].get("startupTaints") or []}
        for taint in taints:
            shown = f"{taint['key']}{'=' + taint['value'] if taint.get('value') else ''}:{taint['effect']}"
            if (taint["key"], taint["effect"]) in startup:
                return "StartupTaintsExist", f'StartupTaint "{shown}" still exists'
            if taint["key"] in EPHEMERAL:
                return "KnownEphemeralTaintsExist", f'KnownEphemeralTaint "{shown}" still exists'
        allocatable = parse_resources(node["status"].get("allocatable"))
        for name in parse_resources((claim["spec"].get("resources") or {}).get("requests")):
            if name != "pods" and not allocatable.get(name):
                return "ResourceNotRegistered", f'Resource "{name}" was requested but not registered'
        if not allocatable.get(NEURON):
            return "ResourceNotRegistered", f'Resource "{NEURON}" was requested but not registered'
        return "", ""

    async def _interrupt(self, claim: Obj, node: Obj | None) -> None:
        text = "Spot interruption warning was triggered"
        for obj in filter(None, (claim, node)):
            self._recorder.event(
                obj, "Warning", "SpotInterrupted", f"{obj['kind']} {obj['metadata']['name']} event: {text}"
            )
        try:
            await self._cache.delete(NODECLAIMS, claim)
        except ApiError as error:
            if not error.not_found:
                raise
