"""fleet: what serves now, and on which NodePools and nodes. For the DAG that looks after all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.kube.capacity import pod_chips
from trainyard.kube.cluster import Cluster, Object
from trainyard.kube.requirements import NODEPOOL
from trainyard.kube.servers import SERVER

_SERVERS = "app.kubernetes.io/managed-by=trainyard,app.kubernetes.io/component=server"


@dataclass(frozen=True)
class Server:
    """One pod that takes traffic. chips: that it holds."""

    model: str
    pod: str
    node: str
    nodepool: str
    chips: int


def serving(cluster: Cluster, namespace: str) -> list[Server]:
    """All ready servers of all models, in a stable order. Raises ClusterUnavailable, PermanentError."""
    return sorted(
        servers(cluster.list("Pod", namespace, labels=_SERVERS)), key=lambda each: (each.model, each.pod)
    )


def servers(pods: Iterable[Object]) -> list[Server]:
    """Those that are ready and stay: one that starts or goes is a release's own business."""
    out = []
    for pod in pods:
        meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
        ready = any(
            item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or []
        )
        if not ready or meta.get("deletionTimestamp") or not spec.get("nodeName"):
            continue
        labels: Mapping[str, str] = meta.get("labels") or {}
        out.append(
            Server(
                model=labels.get("trainyard.dev/model", ""),
                pod=meta["name"],
                node=spec["nodeName"],
                nodepool=(spec.get("nodeSelector") or {}).get(NODEPOOL, ""),
                chips=pod_chips(pod),
            )
        )
    return out


def devices(found: Iterable[Server]) -> list[dict[str, Any]]:
    """Arguments of one look at the devices of each pod."""
    return [{"pod": each.pod, "chips": each.chips, "container": SERVER} for each in found]


def nodepools(found: Iterable[Server]) -> list[str]:
    return sorted({each.nodepool for each in found if each.nodepool})


def nodes(found: Iterable[Server]) -> list[str]:
    return sorted({each.node for each in found})
