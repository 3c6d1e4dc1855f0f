"""The API server itself: version, and the kinds that Trainyard needs of Karpenter and the Gateway API."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainyard.doctor.findings import Finding, Part
from trainyard.errors import NotFound
from trainyard.kube.cluster import Cluster

# Karpenter 1.x runs on nothing older.
OLDEST = (1, 29)
NEEDED: dict[str, tuple[str, ...]] = {
    "gateway.networking.k8s.io/v1": ("GatewayClass", "Gateway", "HTTPRoute"),
    "karpenter.sh/v1": ("NodePool", "NodeClaim"),
    "karpenter.k8s.aws/v1": ("EC2NodeClass",),
}
_INSTALL = {
    "gateway.networking.k8s.io": "Install the Gateway API's CRDs (standard channel, v1.0 or later) and an "
    "implementation of it.",
    "karpenter.sh": "Install Karpenter 1.x with its CRDs.",
    "karpenter.k8s.aws": "Install Karpenter 1.x for AWS with its CRDs (chart karpenter-crd).",
}
_API, _KINDS = Part("api"), Part("kinds")


def version(cluster: Cluster) -> Iterator[Finding]:
    found = str(cluster.read("/version").get("gitVersion", ""))
    parts = re.match(r"v(\d+)\.(\d+)", found)
    if parts is None:
        yield _API.warning("server", f"its version is {found!r}", "Is this a Kubernetes API server?")
    elif (int(parts[1]), int(parts[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield _API.warning(
            "server",
            f"it is Kubernetes {found}",
            f"Upgrade the cluster: Karpenter 1.x needs {oldest} or later.",
        )
    else:
        yield _API.ok("server", f"Kubernetes {found}")


def served(cluster: Cluster) -> Iterator[Finding]:
    """By discovery, which everybody may read: definitions themselves only administrators may."""
    for group_version, kinds in NEEDED.items():
        group, _, _ = group_version.partition("/")
        try:
            entries = cluster.read(f"/apis/{group_version}").get("resources") or []
        except NotFound:
            others = _versions(cluster, group)
            says = (
                f"the API server serves {', '.join(others)} only"
                if others
                else "the API server knows no such kinds"
            )
            yield _KINDS.failed(group_version, says, _INSTALL[group])
            continue
        missing = sorted(set(kinds) - {str(entry.get("kind")) for entry in entries})
        if missing:
            yield _KINDS.failed(group_version, f"{', '.join(missing)} is not served", _INSTALL[group])
        else:
            yield _KINDS.ok(group_version, ", ".join(kinds))


def _versions(cluster: Cluster, group: str) -> list[str]:
    try:
        found = cluster.read(f"/apis/{group}").get("versions") or []
    except NotFound:
        return []
    return [str(each.get("groupVersion")) for each in found]
