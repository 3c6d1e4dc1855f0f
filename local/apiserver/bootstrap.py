"""What every cluster has from the start: namespaces, and the roles without which nobody could look around."""

from __future__ import annotations

import json

from local.apiserver.calls import Call, Cluster, Target, now
from local.apiserver.crds import after_write
from local.apiserver.errors import Object
from local.apiserver.rbac import GROUP
from local.apiserver.users import AUTHENTICATED, MASTERS, UNAUTHENTICATED
from local.apiserver.writing import create

_HEALTH = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
_DISCOVERY = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *_HEALTH]
_ALL = ["*"]


def _rule(group: str, resources: list[str]) -> Object:
    return {"apiGroups": [group], "resources": resources, "verbs": ["create"]}


_REVIEWS = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]
ROLES: dict[str, tuple[list[Object], tuple[str, ...]]] = {
    "cluster-admin": (
        [
            {"apiGroups": _ALL, "resources": _ALL, "verbs": _ALL},
            {"nonResourceURLs": _ALL, "verbs": _ALL},
        ],
        (MASTERS,),
    ),
    "system:basic-user": (
        [_rule("authorization.k8s.io", _REVIEWS), _rule("authentication.k8s.io", ["selfsubjectreviews"])],
        (AUTHENTICATED,),
    ),
    "system:discovery": ([{"nonResourceURLs": _DISCOVERY, "verbs": ["get"]}], (AUTHENTICATED,)),
    "system:public-info-viewer": (
        [{"nonResourceURLs": _HEALTH, "verbs": ["get"]}],
        (AUTHENTICATED, UNAUTHENTICATED),
    ),
}
"""ClusterRoles by name: their rules, and the groups that they are bound to under the same name."""


def _put(cluster: Cluster, group: str, plural: str, body: Object) -> Call:
    resource = cluster.registry.find(group, "v1", plural)
    assert resource is not None
    call = Call(cluster, resource, Target(group, "v1", plural), raw=json.dumps(body).encode())
    create(call)
    return call


def bootstrap(cluster: Cluster) -> None:
    for name in ("default", "kube-node-lease", "kube-public", "kube-system"):
        _put(cluster, "", "namespaces", {"metadata": {"name": name, "creationTimestamp": now()}})
    for name, (rules, groups) in ROLES.items():
        meta = {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}
        _put(cluster, GROUP, "clusterroles", {"metadata": meta, "rules": rules})
        role = {"apiGroup": GROUP, "kind": "ClusterRole", "name": name}
        subjects = [{"apiGroup": GROUP, "kind": "Group", "name": group} for group in groups]
        _put(cluster, GROUP, "clusterrolebindings", {"metadata": meta, "roleRef": role, "subjects": subjects})


def install(cluster: Cluster, definition: Object) -> None:
    """Creates a CustomResourceDefinition and serves it; ApiError if it is not valid."""
    after_write(_put(cluster, "apiextensions.k8s.io", "customresourcedefinitions", definition))
