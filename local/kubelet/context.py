"""What a pod's workers share: the host they run on, the node they belong to, the pod itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from local.client.events import Recorder
from local.client.informer import Cache
from local.client.kinds import Obj
from local.kubelet.devices import Devices
from local.kubelet.environment import Sources
from local.kubelet.images import ImageTable
from local.kubelet.memory import MemoryWatch


@dataclass(frozen=True)
class Settings:
    """The kubelet's flags. Times in seconds."""

    root: Path
    address: str
    port: int
    token: str
    pod_cidr: str = "127.64.0.0/12"
    backoff_base: float = 10.0
    backoff_max: float = 300.0
    register_seconds: float = 0.7
    plugin_seconds: float = 0.5
    identity_file: Path | None = None


@dataclass
class Host:
    """The machine: one for all nodes that this kubelet stands for."""

    settings: Settings
    cache: Cache
    recorder: Recorder
    images: ImageTable
    memory: MemoryWatch
    http: aiohttp.ClientSession


@dataclass
class NodeContext:
    """One node as its pods see it."""

    name: str
    instance_type: str
    devices: Devices
    allocatable: Mapping[str, str] = field(default_factory=dict)


@dataclass
class PodContext:
    """One pod as its containers see it."""

    host: Host
    node: NodeContext
    pod: Obj
    folder: Path
    logs: Path
    ip: str
    changed: Callable[[], None]
    refresh: Callable[[], Awaitable[None]]
    """Reads ConfigMaps and Secrets again, for a container that could not be configured."""
    volumes: dict[str, Path] = field(default_factory=dict)
    sources: Sources = field(default_factory=Sources)
    identity: dict[str, str] = field(default_factory=dict)

    def event(self, kind: str, reason: str, message: str, field_path: str = "") -> None:
        self.host.recorder.event(self.pod, kind, reason, message, host=self.node.name, field=field_path)
