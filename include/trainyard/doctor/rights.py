"""May Airflow's account do what the code does? Asked of the API server, one right at a time."""

from __future__ import annotations

from collections.abc import Iterator

from trainyard.doctor.findings import Finding, Part
from trainyard.doctor.objects import APPLY
from trainyard.errors import Forbidden, NotFound
from trainyard.kube.cluster import Cluster
from trainyard.kube.permissions import NEEDS, Need, Permission
from trainyard.settings import Settings

_RIGHTS = Part("rights")


def review(permission: Permission, namespace: str) -> dict[str, object]:
    """A SelfSubjectAccessReview."""
    resource, _, subresource = permission.resource.partition("/")
    about = {
        "namespace": namespace,
        "verb": permission.verb,
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "metadata": {},
        "spec": {"resourceAttributes": {key: value for key, value in about.items() if value}},
    }


def rights(cluster: Cluster, settings: Settings, who: str) -> Iterator[Finding]:
    """cluster: as seen by `who` (for people)."""
    spaces = {"jobs": settings.jobs_namespace, "serving": settings.serving_namespace, "cluster": ""}
    lacking: list[tuple[Need, Permission, str]] = []
    asked = 0
    for need in NEEDS:
        for permission in need.permissions():
            try:
                answer = cluster.create(review(permission, spaces[need.scope]))
            except NotFound:
                yield _RIGHTS.unknown(
                    who,
                    "this API server answers no SelfSubjectAccessReview (authorization.k8s.io/v1)",
                    "kubectl auth can-i --list shows what the account may do.",
                )
                return
            except Forbidden as error:
                yield _RIGHTS.unknown(
                    who,
                    f"it cannot be asked: {str(error).partition('. Grant it')[0]}",
                    "Ask as somebody who may impersonate it, or as yourself: --as ''.",
                )
                return
            asked += 1
            status = answer.get("status") or {}
            if not status.get("allowed"):
                lacking.append((need, permission, str(status.get("reason") or "")))
    for need, permission, reason in lacking:
        because = f" ({reason})" if reason else ""
        where = spaces[need.scope] or "all namespaces"
        group = f".{permission.group}" if permission.group else ""
        yield _RIGHTS.failed(
            f"{permission.verb} {permission.resource}{group} in {where}",
            f"{who} may not{because}: {need.why}",
            f"{APPLY}, and check that its RoleBindings name the account.",
        )
    if not lacking:
        yield _RIGHTS.ok(who, f"all {asked} rights that the code uses")
