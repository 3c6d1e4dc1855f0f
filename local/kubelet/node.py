"""A node that this kubelet stands for: registration, conditions, device plugin, lease."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import aiohttp

from local.client.api import ApiError
from local.client.informer import Cache
from local.client.instances import INSTANCE_TYPES, NEURON, NEURONCORE, InstanceType
from local.client.kinds import LEASES, NODES, Obj
from local.client.objects import condition, is_true, micro_stamp, stamp
from local.client.quantity import Resources, format_resources
from local.kubelet.context import NodeContext, Settings
from local.kubelet.devices import Devices

log = logging.getLogger(__name__)
LEASE_NAMESPACE = "kube-node-lease"
HEARTBEAT = 10.0
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
UNREGISTERED = {"key": "karpenter.sh/unregistered", "effect": "NoExecute"}
SYSTEM = "local-system"
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


@dataclass(frozen=True)
class NodeSpec:
    """What a node is to be. `capacity` holds no devices; `devices` come from the plugin once the node is
    ready.
    """

    name: str
    instance_type: str
    labels: Mapping[str, str]
    taints: tuple[Obj, ...]
    capacity: Resources
    allocatable: Resources
    devices: Mapping[str, Decimal] = field(default_factory=dict)
    provider_id: str = ""
    plugin: bool = True


def system_node() -> NodeSpec:
    """The static CPU node: a simulation of size, not a measure of this machine."""
    gib = Decimal(2**30)
    size: Resources = {
        "cpu": Decimal(64),
        "memory": 256 * gib,
        "pods": Decimal(200),
        "ephemeral-storage": 500 * gib,
    }
    labels = {
        "node.kubernetes.io/instance-type": "m7i.8xlarge",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/region": "us-east-2",
        "topology.kubernetes.io/zone": "us-east-2b",
    }
    return NodeSpec(SYSTEM, "m7i.8xlarge", labels, (), size, size)


def claimed_node(claim: Obj) -> NodeSpec | None:
    """The node of a launched NodeClaim; None while its status does not say what was launched."""
    meta, spec, status = claim["metadata"], claim["spec"], claim.get("status") or {}
    provider, labels = status.get("providerID"), dict(meta.get("labels") or {})
    kind = INSTANCE_TYPES.get(labels.get("node.kubernetes.io/instance-type", ""))
    if not provider or kind is None:
        return None
    faults = json.loads((meta.get("annotations") or {}).get("local.trainyard.dev/faults") or "{}")
    devices = {NEURON: Decimal(kind.chips), NEURONCORE: Decimal(kind.cores)}
    return NodeSpec(
        name=node_name(provider),
        instance_type=kind.name,
        labels={**kind.labels(), **labels},
        taints=(UNREGISTERED, *(spec.get("taints") or []), *(spec.get("startupTaints") or [])),
        capacity=_without_devices(kind, kind.capacity()),
        allocatable=_without_devices(kind, kind.allocatable()),
        devices=devices,
        provider_id=provider,
        plugin=not faults.get("device_plugin_missing"),
    )


def _without_devices(kind: InstanceType, resources: Resources) -> Resources:
    return {name: value for name, value in resources.items() if name not in (NEURON, NEURONCORE)}


def node_name(provider_id: str) -> str:
    """EC2's resource-based host name: i-0abc.us-east-2.compute.internal."""
    zone, instance = provider_id.rsplit("/", 2)[-2:]
    return f"{instance}.{zone[:-1]}.compute.internal"


class Node:
    """Keeps one Node object alive."""

    def __init__(self, cache: Cache, settings: Settings, spec: NodeSpec) -> None:
        self._cache = cache
        self._settings = settings
        self.spec = spec
        self.doubted = asyncio.Event()
        """Somebody wrote that it is not ready."""
        self.context = NodeContext(
            spec.name,
            spec.instance_type,
            Devices(int(spec.devices.get(NEURON, 0))),
            format_resources({**spec.allocatable, **spec.devices}),
        )

    async def run(self) -> None:
        """Register, bring the devices, renew the lease; until cancelled."""
        await self._retry(self._register)
        if self.spec.devices and self.spec.plugin:
            await asyncio.sleep(self._settings.plugin_seconds)
            await self._retry(self._plug_in)
        while True:
            await self._retry(self._renew)
            await self._retry(self._affirm)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.doubted.wait(), HEARTBEAT)
            self.doubted.clear()

    async def _retry(self, step: object) -> None:
        assert callable(step)
        pause = 0.1
        while True:
            try:
                await step()
                return
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("node %s: %s", self.spec.name, error or type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _register(self) -> None:
        spec = self.spec
        labels = {"kubernetes.io/hostname": spec.name, **spec.labels}
        node: Obj = {
            "metadata": {"name": spec.name, "labels": labels},
            "spec": {
                "taints": [NOT_READY, *spec.taints],
                **({"providerID": spec.provider_id} if spec.provider_id else {}),
            },
        }
        try:
            made = await self._cache.create(NODES, node)
        except ApiError as error:
            if not error.already_exists:
                raise
            # A restarted kubelet finds its node; labels are made right, taints are others' business by now.
            made = await self._cache.patch(NODES, node, {"metadata": {"labels": labels}})
        await self._cache.patch(NODES, made, {"status": self._status(made)}, sub="status")

    def _status(self, node: Obj) -> Obj:
        settings, spec, moment = self._settings, self.spec, stamp()
        conditions = []
        for kind, status, reason, message in _CONDITIONS:
            old = condition(node, kind) or {}
            since = old.get("lastTransitionTime") if old.get("status") == status else None
            conditions.append(
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": moment,
                    "lastTransitionTime": since or moment,
                }
            )
        return {
            "capacity": format_resources(spec.capacity),
            "allocatable": format_resources(spec.allocatable),
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": settings.address},
                {"type": "Hostname", "address": spec.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.port}},
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "local://1.0.0",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.36.0",
                "machineID": spec.name,
                "operatingSystem": "linux",
                "osImage": "Local processes",
                "systemUUID": spec.name,
            },
        }

    async def _plug_in(self) -> None:
        devices = format_resources(self.spec.devices)
        body = {"status": {"capacity": devices, "allocatable": devices}}
        await self._cache.patch(NODES, {"metadata": {"name": self.spec.name}}, body, sub="status")

    async def _affirm(self) -> None:
        """Say again that it is ready, where a pause of this process was taken for its end."""
        node = self._cache.of(NODES).get("", self.spec.name)
        if node is None or is_true(node, "Ready"):
            return
        ours = self._status(node)["conditions"]
        kinds = {each["type"] for each in ours}
        known = (node.get("status") or {}).get("conditions") or []
        others = [each for each in known if each["type"] not in kinds]
        await self._cache.patch(NODES, node, {"status": {"conditions": [*ours, *others]}}, sub="status")

    async def _renew(self) -> None:
        name = self.spec.name
        renewal = {"spec": {"renewTime": micro_stamp()}}
        try:
            await self._cache.api.patch(LEASES, LEASE_NAMESPACE, name, renewal)
        except ApiError as error:
            if not error.not_found:
                raise
            lease = {
                "metadata": {"name": name, "namespace": LEASE_NAMESPACE},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro_stamp()},
            }
            try:
                await self._cache.api.create(LEASES, lease)
            except ApiError as second:
                # The namespace is made by the API server or a controller, possibly later than us.
                if not second.not_found:
                    raise
                log.info("node %s: no namespace %s yet", name, LEASE_NAMESPACE)
