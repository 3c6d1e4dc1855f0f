"""create, update and the four patches: one path from a body to a stored object."""

from __future__ import annotations

import json
from typing import Any

from local.apiserver.admitting import (
    Answer,
    admit_namespace,
    check_kind,
    check_name,
    check_namespace,
    complete,
    generate_name,
    read_object,
    schema_of,
)
from local.apiserver.calls import Call, new_uid, now
from local.apiserver.errors import (
    Object,
    Subject,
    already_exists,
    bad_request,
    conflict,
    invalid,
    invalid_value,
    required,
    unsupported_media_type,
)
from local.apiserver.patches.apply import apply_configuration
from local.apiserver.patches.merging import json_patch, merge_patch
from local.apiserver.patches.ownership import Manager, track_update
from local.apiserver.patches.strategic import strategic_merge
from local.apiserver.preparing import prepare_create
from local.apiserver.reading import fetch
from local.apiserver.validation import validate
from local.apiserver.views import to_stored, to_view

JSON_PATCH, MERGE, STRATEGIC, APPLY = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
_VERSIONED = {
    ("coordination.k8s.io", "leases"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
}
"""Built-in resources that refuse an update without resourceVersion; so do all custom ones."""


def check_media(call: Call) -> None:
    """ApiError 415 for a body that is neither JSON nor YAML: protobuf and CBOR are not served."""
    media = call.content_type.split(";")[0].strip()
    if media not in ("", "application/json", "application/yaml", "application/octet-stream"):
        raise unsupported_media_type(["application/json", "application/yaml"])


def create(call: Call) -> Answer:
    """POST: 201 with the object; ApiError 400, 403, 404, 409 or 422."""
    answer = Answer({}, 201)
    check_media(call)
    body = call.body()
    obj = read_object(call, body, answer)
    check_namespace(call, obj)
    answer.body = _create(call, obj, None)
    return answer


def _create(call: Call, obj: Object, applied: Object | None) -> Object:
    resource, meta = call.resource, obj["metadata"]
    if applied is not None:
        meta["managedFields"] = applied["metadata"].get("managedFields") or []
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    prefix = meta.get("generateName")
    if not meta.get("name") and prefix:
        meta["name"] = generate_name(prefix)
    admit_namespace(call, meta.get("name", ""))
    for name in _KEPT:
        meta.pop(name, None)
    meta["uid"], meta["creationTimestamp"] = new_uid(), now()
    if resource.generation or resource.custom:
        meta["generation"] = 1
    complete(call, obj)
    errors = validate(resource, obj, None)
    if errors:
        raise invalid(resource.subject(meta.get("name", "")), errors)
    call.vet(call, obj, None)
    if call.collection.get(call.key(meta["name"])) is not None:
        if not prefix:
            raise already_exists(resource.subject(meta["name"]))
        meta["name"] = generate_name(prefix)
    prepare_create(call, obj)
    if applied is None:
        track_update(
            None, obj, schema_of(resource), Manager(call.manager, "Update", resource.api_version), now()
        )
    stored = to_stored(resource, obj)
    if not call.dry_run:
        stored = call.cluster.store.put(resource.storage, stored)
    return to_view(resource, stored)


def replace(call: Call) -> Answer:
    """PUT of an object or its status: 200 with the object."""
    answer = Answer({})
    check_media(call)
    obj = read_object(call, call.body(), answer)
    check_name(call, obj)
    check_namespace(call, obj)
    old = fetch(call)
    versioned = call.resource.custom or call.resource.storage in _VERSIONED
    if versioned and not obj["metadata"].get("resourceVersion"):
        error = invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
        raise invalid(call.resource.subject(call.target.name), [error])
    answer.body = update(call, old, obj)
    return answer


def update(call: Call, stored: Object, obj: Object, applied: bool = False) -> Object:
    """Stores `obj` (fresh, owned) over `stored`; returns what the client sees. No change, no new version.

    With `applied` the object's managedFields are those of an apply and stay as they are.
    """
    resource, old = call.resource, to_view(call.resource, stored)
    meta, before = obj["metadata"], old["metadata"]
    if meta.get("resourceVersion") not in (None, "", before["resourceVersion"]):
        raise conflict(resource.subject(call.target.name))
    if meta.get("uid") not in (None, "", before["uid"]):
        text = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
        raise conflict(resource.subject(call.target.name), text)
    cleared = "managedFields" in meta and not any(meta["managedFields"])
    if cleared:
        del meta["managedFields"]
    for name in (*_KEPT, *(() if applied or cleared else ("managedFields",))):
        meta.pop(name, None)
        if name in before:
            meta[name] = before[name]
    meta["resourceVersion"] = before["resourceVersion"]
    subresource = call.target.subresource
    if subresource == "status":
        obj = _only_status(call, old, obj)
    elif "status" in resource.subresources:
        obj.pop("status", None)
        if "status" in old:
            obj["status"] = old["status"]
    meta = obj["metadata"]
    complete(call, obj)
    errors = validate(resource, obj, old, subresource)
    if errors:
        raise invalid(resource.subject(call.target.name), errors)
    call.vet(call, obj, old)
    if _content(obj) != _content(old) and (resource.generation or resource.custom):
        meta["generation"] = before.get("generation", 0) + 1
    if not applied and not cleared:
        manager = Manager(call.manager, "Update", resource.api_version, subresource)
        track_update(old, obj, schema_of(resource), manager, now())
    if _unchanged(old, obj):
        return old
    if call.dry_run:
        return obj
    if meta.get("deletionTimestamp") and is_finished(call, obj):
        call.cluster.store.remove(resource.storage, to_stored(resource, obj))
        return obj
    return to_view(resource, call.cluster.store.put(resource.storage, to_stored(resource, obj)))


def is_finished(call: Call, obj: Object) -> bool:
    """Whether a deleted object has nothing left to wait for."""
    meta = obj["metadata"]
    if meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
        return False
    return not (call.resource.storage == ("", "namespaces") and obj["spec"].get("finalizers"))


def _only_status(call: Call, old: Object, obj: Object) -> Object:
    """The old object with the new one's status (and, for nodes and pods, its labels and annotations)."""
    meta = dict(old["metadata"])
    if call.resource.storage in (("", "nodes"), ("", "pods")):
        meta = {**obj["metadata"], "ownerReferences": old["metadata"].get("ownerReferences")}
        meta = {k: v for k, v in meta.items() if v is not None}
    elif "managedFields" in obj["metadata"]:
        meta["managedFields"] = obj["metadata"]["managedFields"]
    result = json.loads(json.dumps({**old, "metadata": meta}))
    result.pop("status", None)
    if "status" in obj:
        result["status"] = obj["status"]
    checked: Object = result
    return checked


def _content(obj: Object) -> Object:
    return {k: v for k, v in obj.items() if k not in ("metadata", "status")}


def _unchanged(old: Object, new: Object) -> bool:
    """Equal but for the times in managedFields."""

    def timeless(obj: Object) -> Object:
        fields = [{**e, "time": ""} for e in obj["metadata"].get("managedFields") or ()]
        return {**obj, "metadata": {**obj["metadata"], "managedFields": fields}}

    return timeless(old) == timeless(new)


def patch(call: Call) -> Answer:
    """PATCH of an object or its status; 201 where server-side apply creates it."""
    media = call.content_type.split(";")[0].strip()
    accepted = [JSON_PATCH, MERGE, APPLY] if call.resource.custom else [JSON_PATCH, MERGE, STRATEGIC, APPLY]
    if media not in accepted:
        raise unsupported_media_type(accepted)
    if media == APPLY:
        return _apply(call)
    answer = Answer({})
    stored = fetch(call)
    old = to_view(call.resource, stored)
    operations = _patch_body(call)
    patched = apply_patch(call, media, old, operations)
    obj = read_object(call, patched, answer)
    check_name(call, obj)
    check_namespace(call, obj)
    answer.body = update(call, stored, obj)
    return answer


def apply_patch(call: Call, media: str, old: Object, operations: Any) -> Object:
    """`old` after one of the three client-driven patches; `old` itself stays as it is."""
    if media == JSON_PATCH:
        return json_patch(old, operations)
    if not isinstance(operations, dict):
        raise bad_request("json: cannot unmarshal array into Go value of type map[string]interface {}")
    if media == STRATEGIC:
        return strategic_merge(old, operations, schema_of(call.resource))
    merged: Object = merge_patch(old, operations)
    return merged


def _patch_body(call: Call) -> Any:
    try:
        return json.loads(call.raw)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from error


def _apply(call: Call) -> Answer:
    resource, name = call.resource, call.target.name
    if not call.query.get("fieldManager"):
        error = required("fieldManager", "is required for apply patch")
        raise invalid(Subject("meta.k8s.io", "patchoptions", "PatchOptions"), [error])
    answer = Answer({})
    body = check_kind(call, call.body())
    config = read_object(call, body, answer)
    check_name(call, config)
    check_namespace(call, config)
    if config["metadata"].pop("managedFields", None):
        raise bad_request("metadata.managedFields must be nil")
    sub = call.target.subresource
    if sub == "status":
        kept = ("apiVersion", "kind", "metadata", "status")
        config = {k: v for k, v in config.items() if k in kept}
        config["metadata"] = {k: v for k, v in config["metadata"].items() if k in ("name", "namespace")}
    elif "status" in resource.subresources:
        config.pop("status", None)
    stored = call.collection.get(call.key())
    live = to_view(resource, stored) if stored else None
    wanted = config["metadata"].pop("resourceVersion", None)
    if live is None and (sub or wanted):
        fetch(call)
    if live is not None and wanted not in (None, "", live["metadata"]["resourceVersion"]):
        raise conflict(resource.subject(name))
    manager = Manager(call.query["fieldManager"], "Apply", resource.api_version, sub)
    force = call.query.get("force", "").lower() in ("1", "true")
    result = apply_configuration(live, config, schema_of(resource), manager, now(), force)
    if live is None or stored is None:
        call.require("create")  # a patch that creates needs both permissions
        answer.code = 201
        answer.body = _create(call, config, result)
        return answer
    quiet = Answer({})
    managed = result["metadata"].get("managedFields") or []
    obj = read_object(call, result, quiet)
    obj["metadata"]["managedFields"] = managed
    answer.body = update(call, stored, obj, applied=True)
    return answer
