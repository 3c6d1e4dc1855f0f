"""What a request is to an authorizer: verb and resource, or verb and path (k8s.io/apiserver, RequestInfo)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from local.apiserver.calls import Target, parse_path
from local.apiserver.errors import ApiError, Subject, forbidden
from local.apiserver.users import User

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch"}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True)
class Attributes:
    """`path` is set for requests that are for no resource; all the rest is empty then."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def full_resource(self) -> str:
        """`pods` or `pods/log`, as rules name it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def is_watch(query: Mapping[str, str]) -> bool:
    return query.get("watch", "").lower() in ("1", "true")


def verb_of(method: str, target: Target, watch: bool) -> str:
    if method == "GET":
        return "watch" if watch else "get" if target.name else "list"
    if method == "DELETE":
        return "delete" if target.name else "deletecollection"
    return _VERBS.get(method, method.lower())


def _selected_name(query: Mapping[str, str]) -> str:
    """The one name that a field selector allows: a rule with resourceNames may allow that list or watch."""
    for part in query.get("fieldSelector", "").split(","):
        field, equal, value = part.partition("=")
        if field.strip() == "metadata.name" and equal:
            return value.lstrip("=").strip()
    return ""


def attributes_of(method: str, path: str, query: Mapping[str, str]) -> Attributes:
    target = parse_path(path)
    if target is None:
        return Attributes(_VERBS.get(method, method.lower()), path=path)
    verb = verb_of(method, target, is_watch(query))
    name = target.name
    if not name and verb in ("list", "watch"):
        name = _selected_name(query)
    # A namespace lies in itself: a Role in it may allow to read it.
    namespace = target.namespace or (
        target.name if (target.group, target.plural) == ("", "namespaces") else ""
    )
    return Attributes(verb, target.group, target.version, target.plural, target.subresource, namespace, name)


def refusal(user: User, asked: Attributes, reason: str = "") -> ApiError:
    """403, worded as a real API server words it."""
    why = f": {reason}" if reason else ""
    if asked.path:
        text = f'User "{user.name}" cannot {asked.verb} path "{asked.path}"'.translate(_ESCAPES)
        return ApiError(403, "Forbidden", f"forbidden: {text}{why}", {})
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    text = (
        f'User "{user.name}" cannot {asked.verb} resource "{asked.full_resource}" '
        f'in API group "{asked.group}" {where}'
    )
    subject = Subject(asked.group, asked.resource, "", asked.name)
    return forbidden(subject, text.translate(_ESCAPES) + why)
