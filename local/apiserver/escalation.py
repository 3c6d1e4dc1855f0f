"""Nobody gives what they do not have: roles and bindings are checked against their writer's own permissions.

As pkg/registry/rbac and component-helpers/auth/rbac/validation do it: a rule is taken apart into single
permissions, each of which one of the writer's rules must allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from local.apiserver.attributes import Attributes
from local.apiserver.calls import Call
from local.apiserver.errors import Object, Subject, forbidden, not_found
from local.apiserver.rbac import GROUP, Rbac
from local.apiserver.users import MASTERS, User

_ROLES = ("roles", "clusterroles")
_BINDINGS = ("rolebindings", "clusterrolebindings")


def _atoms(rule: Object) -> Iterator[Object]:
    """The single permissions of a rule, each a rule of its own."""
    verbs = rule.get("verbs") or ()
    for verb, url in product(verbs, rule.get("nonResourceURLs") or ()):
        yield {"verbs": [verb], "nonResourceURLs": [url]}
    groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
    for verb, group, resource, name in product(verbs, groups, resources, rule.get("resourceNames") or ("",)):
        atom: Object = {"verbs": [verb], "apiGroups": [group], "resources": [resource]}
        yield {**atom, "resourceNames": [name]} if name else atom


def _covers_all(given: list[str], wanted: str) -> bool:
    return "*" in given or wanted in given


def _covers_resource(given: list[str], wanted: str) -> bool:
    _, slash, sub = wanted.partition("/")
    return _covers_all(given, wanted) or (bool(slash) and f"*/{sub}" in given)


def _covers(own: Object, atom: Object) -> bool:
    if not _covers_all(own.get("verbs") or [], atom["verbs"][0]):
        return False
    if "nonResourceURLs" in atom:
        url = atom["nonResourceURLs"][0]
        return any(
            given in ("*", url) or (given.endswith("*") and url.startswith(given.rstrip("*")))
            for given in own.get("nonResourceURLs") or ()
        )
    only = own.get("resourceNames")
    return (
        _covers_all(own.get("apiGroups") or [], atom["apiGroups"][0])
        and _covers_resource(own.get("resources") or [], atom["resources"][0])
        and (not only or ("resourceNames" in atom and atom["resourceNames"][0] in only))
    )


def uncovered(own: list[Object], wanted: list[Object]) -> list[Object]:
    """The single permissions of `wanted` that no rule of `own` gives."""
    return [atom for rule in wanted for atom in _atoms(rule) if not any(_covers(o, atom) for o in own)]


def _quoted(words: Iterable[str]) -> str:
    return "[" + " ".join(f'"{word}"' for word in words) + "]"


def _describe(atoms: list[Object]) -> str:
    """Sorted lines, one for all verbs on the same thing, as Go prints compact rules."""
    verbs: dict[str, list[str]] = {}
    shown = {
        "apiGroups": "APIGroups",
        "resources": "Resources",
        "resourceNames": "ResourceNames",
        "nonResourceURLs": "NonResourceURLs",
    }
    for atom in atoms:
        thing = ", ".join(f"{title}:{_quoted(atom[name])}" for name, title in shown.items() if name in atom)
        verbs.setdefault(thing, []).extend(atom["verbs"])
    return "\n".join(sorted(f"{{{thing}, Verbs:{_quoted(v)}}}" for thing, v in verbs.items()))


def check_escalation(rbac: Rbac, user: User, call: Call, obj: Object, old: Object | None) -> None:
    """ApiError 403 for a role or binding that gives more than `user` has; `obj` is what would be stored."""
    plural, namespace = call.resource.plural, call.target.namespace
    if call.resource.group != GROUP or MASTERS in user.groups:
        return
    name = obj["metadata"].get("name", "")
    if plural in _ROLES:
        if old is not None and old.get("rules") == obj.get("rules"):
            return
        free, wanted = (
            Attributes("escalate", GROUP, "v1", plural, "", namespace, name),
            obj.get("rules") or [],
        )
    elif plural in _BINDINGS:
        if old is not None and all(old.get(f) == obj.get(f) for f in ("subjects", "roleRef")):
            return
        kind, role = obj["roleRef"]["kind"], obj["roleRef"]["name"]
        free = Attributes("bind", GROUP, "v1", f"{kind.lower()}s", "", namespace, role)
        found = rbac.rules_of(kind, role, namespace)
        if found is None and not rbac.authorize(user, free).allowed:
            raise not_found(Subject(GROUP, free.resource, kind, role))
        wanted = found or []
    else:
        return
    if rbac.authorize(user, free).allowed:
        return
    missing = uncovered([g.rule for g in rbac.granted(user, namespace).grants], wanted)
    if not missing:
        return
    who = f'user "{user.name}" (groups={_quoted(user.groups)})'
    text = f"{who} is attempting to grant RBAC permissions not currently held:\n{_describe(missing)}"
    raise forbidden(call.resource.subject(name), text)
