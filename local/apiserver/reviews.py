"""Who am I, and may I: the reviews of authentication.k8s.io and authorization.k8s.io."""

from __future__ import annotations

from local.apiserver.admitting import Answer, read_object
from local.apiserver.attributes import Attributes
from local.apiserver.calls import Call
from local.apiserver.errors import FieldError, Object, bad_request, invalid, invalid_value
from local.apiserver.protobuf import MEDIA_TYPE, read_review
from local.apiserver.rbac import Rbac
from local.apiserver.resources import Resource
from local.apiserver.users import User
from local.apiserver.writing import check_media

_EITHER = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
_BOTH = "cannot be specified in combination with resourceAttributes"


def is_review(resource: Resource) -> bool:
    return resource.group in ("authentication.k8s.io", "authorization.k8s.io")


def review(call: Call, rbac: Rbac, user: User) -> Answer:
    """POST of any review: 201 with its status; ApiError 400, 403 or 422."""
    answer = Answer({}, 201)
    if call.content_type.split(";")[0].strip() == MEDIA_TYPE:
        body = read_review(call.raw, call.resource.kind)
    else:
        check_media(call)
        body = call.body()
    obj = read_object(call, body, answer)
    spec = obj.get("spec") or {}
    match call.resource.kind:
        case "SelfSubjectReview":
            obj["status"] = {"userInfo": user.shown()}
        case "SelfSubjectRulesReview":
            obj["status"] = _rules(rbac, user, spec.get("namespace", ""))
        case "SelfSubjectAccessReview":
            _check(call, spec)
            obj["status"] = _access(rbac, user, spec)
        case _:
            _check(call, spec)
            obj["status"] = _access(rbac, _subject(spec), spec)
    answer.body = obj
    return answer


def _check(call: Call, spec: Object) -> None:
    """ApiError 422, or 403 for a local review of another namespace."""
    errors: list[FieldError] = []
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and path is not None:
        errors.append(invalid_value("spec.nonResourceAttributes", path, _BOTH))
    elif resource is None and path is None:
        errors.append(invalid_value("spec.resourceAttributes", None, _EITHER))
    if call.resource.kind != "SelfSubjectAccessReview" and not (spec.get("user") or spec.get("groups")):
        errors.append(invalid_value("spec.user", "", "at least one of user or group must be specified"))
    if call.resource.namespaced and (resource or {}).get("namespace") != call.target.namespace:
        text = f"must match metadata.namespace: {call.target.namespace}"
        named = (resource or {}).get("namespace", "")
        errors.append(invalid_value("spec.resourceAttributes.namespace", named, text))
    if errors:
        raise invalid(call.resource.subject(), errors)


def _subject(spec: Object) -> User:
    extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
    return User(spec.get("user", ""), spec.get("uid", ""), tuple(spec.get("groups") or ()), extra)


def _asked(spec: Object) -> Attributes:
    path = spec.get("nonResourceAttributes")
    if path is not None:
        return Attributes(path.get("verb", ""), path=path.get("path") or "/")
    given = spec["resourceAttributes"]
    names = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    return Attributes(**{name: given.get(name) or "" for name in names})


def _access(rbac: Rbac, user: User, spec: Object) -> Object:
    decision = rbac.authorize(user, _asked(spec))
    return {"allowed": decision.allowed} | ({"reason": decision.reason} if decision.reason else {})


def _rules(rbac: Rbac, user: User, namespace: str) -> Object:
    """All that a user may do in a namespace, as `kubectl auth can-i --list` shows it."""
    if not namespace:
        raise bad_request("no namespace on request")
    granted = rbac.granted(user, namespace)
    resources: list[Object] = []
    paths: list[Object] = []
    for grant in granted.grants:
        rule = grant.rule
        if rule.get("nonResourceURLs"):
            paths.append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
            continue
        names = ("verbs", "apiGroups", "resources", "resourceNames")
        resources.append({name: rule[name] for name in names if rule.get(name)})
    status: Object = {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}
    if granted.errors:
        status["evaluationError"] = ", ".join(granted.errors)
    return status
