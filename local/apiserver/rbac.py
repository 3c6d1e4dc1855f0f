"""Role-based access control over the roles and bindings in the store (plugin/pkg/auth/authorizer/rbac).

Roles are read at each request: there are few, and a change counts at once. ClusterRoles that aggregate
others are taken as they are stored; the controller that would fill their rules is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from local.apiserver.attributes import Attributes
from local.apiserver.calls import Cluster
from local.apiserver.errors import Object
from local.apiserver.store import key_of
from local.apiserver.users import MASTERS, User, service_account

GROUP = "rbac.authorization.k8s.io"
ROLES, CLUSTER_ROLES = (GROUP, "roles"), (GROUP, "clusterroles")
BINDINGS, CLUSTER_BINDINGS = (GROUP, "rolebindings"), (GROUP, "clusterrolebindings")


@dataclass(frozen=True)
class Decision:
    """`reason` says which binding allowed it, or what kept a binding from being read."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True)
class Grant:
    """One rule, and the words for the binding that it came by."""

    rule: Object
    by: str


@dataclass
class Granted:
    """The rules of a user, and the bindings whose role is missing."""

    grants: list[Grant] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def _covers_resource(rule: Object, asked: Attributes) -> bool:
    names = rule.get("resources") or ()
    if "*" in names or asked.full_resource in names:
        return True
    return bool(asked.subresource) and f"*/{asked.subresource}" in names


def _covers_path(rule: Object, path: str) -> bool:
    return any(
        url in ("*", path) or (url.endswith("*") and path.startswith(url.rstrip("*")))
        for url in rule.get("nonResourceURLs") or ()
    )


def allows(rule: Object, asked: Attributes) -> bool:
    """Whether one PolicyRule allows a request."""
    verbs = rule.get("verbs") or ()
    if "*" not in verbs and asked.verb not in verbs:
        return False
    if asked.path:
        return _covers_path(rule, asked.path)
    groups, only = rule.get("apiGroups") or (), rule.get("resourceNames")
    return (
        ("*" in groups or asked.group in groups)
        and _covers_resource(rule, asked)
        and (not only or asked.name in only)
    )


def _applies(subject: Object, user: User, namespace: str) -> bool:
    """Whether a binding's subject is the user; `namespace` is the binding's, "" for a ClusterRoleBinding."""
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "User":
        return bool(user.name == name)
    if kind == "Group":
        return name in user.groups
    where = subject.get("namespace") or namespace
    return kind == "ServiceAccount" and bool(where) and service_account(user.name) == (where, name)


def _describe(subject: Object, namespace: str) -> str:
    name = subject.get("name", "")
    if subject.get("kind") == "ServiceAccount":
        name += "/" + (subject.get("namespace") or namespace)
    return f'{subject.get("kind")} "{name}"'


@dataclass(frozen=True)
class Rbac:
    """The authorizer over one cluster."""

    cluster: Cluster

    def authorize(self, user: User, asked: Attributes) -> Decision:
        if MASTERS in user.groups:
            return Decision(True)
        errors: list[str] = []
        for found in self._visit(user, asked.namespace):
            if isinstance(found, str):
                errors.append(found)
            elif allows(found.rule, asked):
                return Decision(True, f"RBAC: allowed by {found.by}")
        text = errors[0] if len(errors) == 1 else "[" + ", ".join(errors) + "]"
        return Decision(False, f"RBAC: {text}" if errors else "")

    def granted(self, user: User, namespace: str) -> Granted:
        """All rules that hold for the user in a namespace; those of the cluster alone for ""."""
        result = Granted()
        for found in self._visit(user, namespace):
            if isinstance(found, str):
                result.errors.append(found)
            else:
                result.grants.append(found)
        return result

    def _visit(self, user: User, namespace: str) -> Iterator[Grant | str]:
        """Rules, and errors as text, in the order of evaluation: those of the cluster come first."""
        yield from self._of_bindings(CLUSTER_BINDINGS, user, "")
        if namespace:
            yield from self._of_bindings(BINDINGS, user, namespace)

    def _of_bindings(self, where: tuple[str, str], user: User, namespace: str) -> Iterator[Grant | str]:
        for _, binding in self.cluster.store.collection(where).scan(namespace):
            subjects = binding.get("subjects") or ()
            subject = next((s for s in subjects if _applies(s, user, namespace)), None)
            if subject is None:
                continue
            name, role = binding["metadata"]["name"], binding["roleRef"]["name"]
            of = binding["roleRef"]["kind"]
            rules = self.rules_of(of, role, namespace)
            if rules is None:
                yield f'{of.lower()}.{GROUP} "{role}" not found'
                continue
            kind, shown = (
                ("RoleBinding", f"{name}/{namespace}") if namespace else ("ClusterRoleBinding", name)
            )
            by = f'{kind} "{shown}" of {of} "{role}" to {_describe(subject, namespace)}'
            for rule in rules:
                yield Grant(rule, by)

    def rules_of(self, kind: str, name: str, namespace: str) -> list[Object] | None:
        """The rules of the role that a binding names; None if there is no such role."""
        where, within = (CLUSTER_ROLES, "") if kind == "ClusterRole" else (ROLES, namespace)
        role = self.cluster.store.collection(where).get(key_of(within, name))
        return None if role is None else role.get("rules") or []
