"""Status of NodePools and EC2NodeClasses: are they ready, what have they bought."""

from __future__ import annotations

from local.client.informer import Cache, key_of
from local.client.instances import INSTANCE_TYPES
from local.client.kinds import EC2NODECLASSES, NODECLAIMS, NODEPOOLS, Key, Obj
from local.client.objects import condition, deleting, is_true, with_condition
from local.client.quantity import add_resources, format_resources
from local.client.queue import Queue
from local.karpenter.claims import NODEPOOL
from local.karpenter.requirements import OPERATORS

CLASS_STEPS = (
    "AMIsReady",
    "SubnetsReady",
    "SecurityGroupsReady",
    "InstanceProfileReady",
    "ValidationSucceeded",
)
ZONES = ("us-east-2a", "us-east-2b", "us-east-2c")


class Pools:
    """Reconciles the status of NodePools and EC2NodeClasses."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._pools: Queue[Key] = Queue("nodepool", self._pool)
        self._classes: Queue[Key] = Queue("ec2nodeclass", self._class)

    async def run_pools(self) -> None:
        await self._cache.sync(NODEPOOLS, NODECLAIMS, EC2NODECLASSES)
        self._cache.of(NODEPOOLS).on_change(lambda _, new: self._pools.add(key_of(new)) if new else None)
        self._cache.of(NODECLAIMS).on_change(self._claim_changed)
        await self._pools.run()

    async def run_classes(self) -> None:
        await self._cache.sync(EC2NODECLASSES, NODEPOOLS)
        self._cache.of(EC2NODECLASSES).on_change(self._class_changed)
        await self._classes.run()

    def _claim_changed(self, old: Obj | None, new: Obj | None) -> None:
        name = ((new or old or {})["metadata"].get("labels") or {}).get(NODEPOOL)
        if name:
            self._pools.add(("", name))

    def _class_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new:
            self._classes.add(key_of(new))
        for pool in self._cache.of(NODEPOOLS).items():
            self._pools.add(key_of(pool))

    async def _class(self, key: Key) -> float | None:
        one = self._cache.of(EC2NODECLASSES).get(*key)
        if one is None or deleting(one):
            return None
        conditions = list((one.get("status") or {}).get("conditions") or [])
        for step in (*CLASS_STEPS, "Ready"):
            conditions = with_condition(conditions, _entry(one, step, "True", step, ""))
        status = {
            "amis": [
                {
                    "id": "ami-0a1b2c3d4e5f67890",
                    "name": "amazon-eks-node-al2023-x86_64-neuron-1.36-v20261101",
                    "requirements": [
                        {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                        {"key": "karpenter.k8s.aws/instance-accelerator-count", "operator": "Exists"},
                    ],
                }
            ],
            "subnets": [{"id": f"subnet-0{index:016x}", "zone": zone} for index, zone in enumerate(ZONES, 1)],
            "securityGroups": [{"id": "sg-00000000000000001", "name": "local-nodes"}],
            "instanceProfile": one["spec"].get("instanceProfile") or f"{one['metadata']['name']}-profile",
            "conditions": conditions,
        }
        if any((one.get("status") or {}).get(name) != value for name, value in status.items()):
            await self._cache.patch(EC2NODECLASSES, one, {"status": status}, sub="status")
        return None

    async def _pool(self, key: Key) -> float | None:
        pool = self._cache.of(NODEPOOLS).get(*key)
        if pool is None or deleting(pool):
            return None
        reference = pool["spec"]["template"]["spec"]["nodeClassRef"]
        node_class = self._cache.of(EC2NODECLASSES).get("", reference["name"])
        problem = _invalid(pool)
        steps = [
            _entry(
                pool,
                "ValidationSucceeded",
                "False" if problem else "True",
                "NodePoolValidationFailed" if problem else "ValidationSucceeded",
                problem,
            )
        ]
        if node_class is None:
            steps.append(
                _entry(pool, "NodeClassReady", "False", "NodeClassNotFound", "NodeClass not found on cluster")
            )
        elif not is_true(node_class, "Ready"):
            steps.append(
                _entry(pool, "NodeClassReady", "False", "NodeClassNotReady", "NodeClass is not ready")
            )
        else:
            steps.append(_entry(pool, "NodeClassReady", "True", "NodeClassReady", ""))
        claims = [
            each
            for each in self._cache.of(NODECLAIMS).items()
            if (each["metadata"].get("labels") or {}).get(NODEPOOL) == key[1]
        ]
        health = condition(pool, "NodeRegistrationHealthy")
        if any(is_true(each, "Registered") for each in claims):
            steps.append(_entry(pool, "NodeRegistrationHealthy", "True", "NodeRegistrationHealthy", ""))
        elif health is None:
            steps.append(
                _entry(
                    pool,
                    "NodeRegistrationHealthy",
                    "Unknown",
                    "AwaitingReconciliation",
                    "object is awaiting reconciliation",
                )
            )
        bad = [each for each in steps if each["status"] == "False"]
        text = ", ".join(f"{each['type']}=False" for each in bad)
        steps.append(
            _entry(pool, "Ready", "False" if bad else "True", "UnhealthyDependents" if bad else "Ready", text)
        )
        conditions = list((pool.get("status") or {}).get("conditions") or [])
        for each in steps:
            conditions = with_condition(conditions, each)
        bought = _bought(claims)
        status = {"conditions": conditions, "resources": bought, "nodes": len(claims)}
        old = pool.get("status") or {}
        if any(old.get(name) != value for name, value in status.items()):
            gone = {name: None for name in old.get("resources") or {} if name not in bought}
            body = {**status, "resources": {**bought, **gone}}
            await self._cache.patch(NODEPOOLS, pool, {"status": body}, sub="status")
        return None


def _bought(claims: list[Obj]) -> dict[str, str]:
    kinds = [
        INSTANCE_TYPES.get((each["metadata"].get("labels") or {}).get("node.kubernetes.io/instance-type", ""))
        for each in claims
    ]
    total = add_resources(kind.capacity() for kind in kinds if kind)
    return {**format_resources(total), "nodes": str(len([kind for kind in kinds if kind]))}


def _invalid(pool: Obj) -> str:
    for each in pool["spec"]["template"]["spec"].get("requirements") or []:
        if each["operator"] not in OPERATORS:
            return f"invalid value: {each['operator']} in operator for key {each['key']}"
        if each["key"] == NODEPOOL:
            return f"invalid value: {NODEPOOL} in requirements, restricted"
    return ""


def _entry(obj: Obj, kind: str, status: str, reason: str, message: str) -> Obj:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": obj["metadata"].get("generation", 1),
    }
