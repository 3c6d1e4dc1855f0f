"""From a request's body to an object of the resource: kind, names, schema, defaults."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from local.apiserver.calls import Call
from local.apiserver.defaults import fill
from local.apiserver.errors import Object, bad_request, forbidden, not_found
from local.apiserver.models import definition
from local.apiserver.resources import NAMESPACES, Resource
from local.apiserver.schemas import decode, fill_defaults, prune

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SCHEME = 'in scheme "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"'


@dataclass
class Answer:
    """What a verb answers: HTTP code, object, and texts for `Warning` headers."""

    body: Object
    code: int = 200
    warnings: list[str] = field(default_factory=list)


def schema_of(resource: Resource) -> Object:
    """The schema of whole objects, metadata included."""
    if not resource.custom:
        return definition("CoreV1Event" if resource.model == "V1Event" else resource.model)
    properties = {**resource.schema.get("properties", {}), "metadata": definition("V1ObjectMeta")}
    return {**resource.schema, "properties": properties}


def check_kind(call: Call, body: Any, kind: str = "", api_version: str = "") -> Object:
    """`body` as an object of the expected kind; ApiError 400 worded as the decoder words it."""
    resource = call.resource
    kind, api_version = kind or resource.kind, api_version or resource.api_version
    if not isinstance(body, dict):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind"
        )
    got_version, got_kind = body.get("apiVersion") or api_version, body.get("kind") or kind
    if (got_version, got_kind) == (api_version, kind):
        return {**body, "apiVersion": api_version, "kind": kind}
    prefix = f'{got_kind} in version "{got_version.rpartition("/")[2]}" cannot be handled as a {kind}: '
    registered = any(
        (r.api_version, r.kind) == (got_version, got_kind)
        for r in call.cluster.registry.all()
        if not r.custom
    )
    if resource.custom:
        text = f"the API version in the data ({got_version}) does not match the expected API version "
        text += f"({api_version})"
        if got_version == api_version:
            text = f"the kind in the data ({got_kind}) does not match the expected kind ({kind})"
        raise bad_request(text)
    if not registered:
        text = f'no kind "{got_kind}" is registered for version "{got_version}" {_SCHEME}'
        raise bad_request(prefix + text)
    source = f"{got_version.rpartition('/')[2]}.{got_kind}"
    target = f"{(resource.group or 'core').split('.')[0]}.{kind}"
    raise bad_request(f"{prefix}converting ({source}) to ({target}): unknown conversion")


def read_object(call: Call, body: Any, answer: Answer) -> Object:
    """A fresh object of the call's resource from `body`: fields checked, unknown ones dropped or refused."""
    resource = call.resource
    obj = check_kind(call, body)
    if not isinstance(obj.get("metadata", {}), dict):
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled: metadata is no object'
        )
    if resource.custom:
        pruned = prune(obj, resource.schema)
        meta = decode(obj.get("metadata") or {}, definition("V1ObjectMeta"), resource.kind, resource.version)
        value, unknown = pruned.value, pruned.unknown + [f"metadata.{u}" for u in meta.unknown]
        value["metadata"] = meta.value
    else:
        decoded = decode(obj, schema_of(resource), resource.kind, resource.version)
        value, unknown = decoded.value, decoded.unknown
        value.setdefault("metadata", {})
    validation = call.query.get("fieldValidation", "Warn")
    texts = [f'unknown field "{u}"' for u in unknown]
    if texts and validation == "Strict":
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {', '.join(texts)}"
        )
    if validation == "Warn":
        answer.warnings += texts
    return tidy({"kind": value["kind"], "apiVersion": value["apiVersion"], **value})


def tidy(obj: Object) -> Object:
    """`obj` without empty metadata maps and lists, which Go leaves out."""
    meta = obj["metadata"]
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        if name in meta and not meta[name]:
            del meta[name]
    return obj


def complete(call: Call, obj: Object) -> Object:
    """Defaults, in place."""
    if call.resource.custom:
        fill_defaults(obj, call.resource.schema)
    else:
        fill(call.resource, obj)
    return obj


def check_namespace(call: Call, obj: Object) -> None:
    """Sets the namespace from the path; ApiError if the object names another one."""
    meta = obj["metadata"]
    if not call.resource.namespaced:
        if meta.pop("namespace", ""):
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        return
    if meta.get("namespace") not in (None, "", call.target.namespace):
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    meta["namespace"] = call.target.namespace


def check_name(call: Call, obj: Object) -> None:
    name = obj["metadata"].get("name")
    if name and name != call.target.name:
        raise bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({call.target.name})"
        )
    obj["metadata"]["name"] = call.target.name


def admit_namespace(call: Call, name: str) -> None:
    """Whether the namespace exists and takes new content."""
    if not call.resource.namespaced:
        return
    where = call.target.namespace
    namespace = call.cluster.store.collection(NAMESPACES).get("/" + where)
    if namespace is None:
        found = call.cluster.registry.find("", "v1", "namespaces")
        assert found is not None
        raise not_found(found.subject(where))
    if namespace["metadata"].get("deletionTimestamp"):
        text = f"unable to create new content in namespace {where} because it is being terminated"
        cause = {"reason": "NamespaceTerminating", "message": f"namespace {where} is being terminated"}
        raise forbidden(call.resource.subject(name), text, [{**cause, "field": "metadata.namespace"}])


def generate_name(prefix: str) -> str:
    return prefix[:58] + "".join(random.choices(_LETTERS, k=5))
