"""Subresources that are no view of the object: scale, binding, eviction, finalize."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from local.apiserver.admitting import Answer, check_kind
from local.apiserver.calls import Call, now
from local.apiserver.deleting import delete_object
from local.apiserver.errors import (
    Object,
    Subject,
    bad_request,
    conflict,
    invalid,
    invalid_value,
    method_not_allowed,
    required,
    success,
)
from local.apiserver.reading import fetch
from local.apiserver.selectors import field_value
from local.apiserver.views import to_view
from local.apiserver.writing import apply_patch, is_finished, update

_DEFAULT_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def _write_selector(selector: Object | None) -> str:
    """A LabelSelector as text, as Scale shows it."""
    selector = selector or {}
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for e in selector.get("matchExpressions") or ():
        values = ",".join(sorted(e.get("values") or ()))
        parts.append(
            {
                "In": f"{e['key']} in ({values})",
                "NotIn": f"{e['key']} notin ({values})",
                "Exists": e["key"],
            }.get(e["operator"], f"!{e['key']}")
        )
    return ",".join(parts)


def show_scale(call: Call, obj: Object) -> Object:
    meta, paths = obj["metadata"], call.resource.scale or _DEFAULT_SCALE
    replicas = field_value(obj, paths["specReplicasPath"].lstrip(".")) or "0"
    current = field_value(obj, paths["statusReplicasPath"].lstrip(".")) or "0"
    status: Object = {"replicas": int(current)}
    if not call.resource.custom:
        status["selector"] = _write_selector(obj["spec"].get("selector"))
    elif paths.get("labelSelectorPath"):
        status["selector"] = field_value(obj, paths["labelSelectorPath"].lstrip("."))
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: meta[k] for k in kept if k in meta},
        "spec": {"replicas": int(replicas)},
        "status": status,
    }


def write_scale(call: Call, method: str) -> Answer:
    """PUT or PATCH of a scale: sets the replicas of the object."""
    stored = fetch(call)
    old = show_scale(call, stored)
    if method == "PUT":
        scale = check_kind(call, call.body(), "Scale", "autoscaling/v1")
    else:
        media = call.content_type.split(";")[0].strip()
        scale = apply_patch(call, media, old, call.body())
    wanted = scale.get("metadata", {}).get("resourceVersion")
    if wanted and wanted != stored["metadata"]["resourceVersion"]:
        raise conflict(call.resource.subject(call.target.name))
    replicas: Any = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        error = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        subject = Subject("autoscaling", "scales", "Scale", call.target.name)
        raise invalid(subject, [error])
    obj = json.loads(json.dumps(to_view(call.resource, stored)))
    *parents, last = (call.resource.scale or _DEFAULT_SCALE)["specReplicasPath"].lstrip(".").split(".")
    node = obj
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = replicas
    return Answer(show_scale(call, update(call, stored, obj)))


def bind(call: Call) -> Answer:
    """POST of a Binding: puts a pod on a node; ApiError 409 if it already is on one."""
    body = check_kind(call, call.body(), "Binding", "v1")
    target = body.get("target") or {}
    stored = fetch(call)
    subject = call.resource.subject(call.target.name)
    if not target.get("name"):
        raise invalid(Subject("", "bindings", "Binding", subject.name), [required("target.name")])
    if target.get("kind") not in ("", None, "Node"):
        raise bad_request(f"Binding target must be a Node, not {target['kind']}")
    meta, spec = stored["metadata"], stored["spec"]
    if meta.get("deletionTimestamp"):
        raise conflict(subject, f"pod {subject.name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise conflict(subject, f'pod {subject.name} is already assigned to node "{spec["nodeName"]}"')
    status = stored.get("status") or {}
    condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
    others = [c for c in status.get("conditions") or () if c["type"] != "PodScheduled"]
    obj = {
        **stored,
        "metadata": {**meta},
        "spec": {**spec, "nodeName": target["name"]},
        "status": {**status, "conditions": [*others, condition]},
    }
    bound = (body.get("metadata") or {}).get("annotations")
    if bound:
        obj["metadata"]["annotations"] = {**(meta.get("annotations") or {}), **bound}
    if not call.dry_run:
        call.cluster.store.put(call.resource.storage, obj)
    return Answer(success(201), 201)


def evict(call: Call) -> Answer:
    """POST of an Eviction: deletes the pod (no PodDisruptionBudgets are served, so none can object)."""
    body = check_kind(call, call.body(), "Eviction", "policy/v1")
    stored = fetch(call)
    dry = bool((body.get("deleteOptions") or {}).get("dryRun"))
    inner = replace(call, query={**call.query, "dryRun": "All"}) if dry else call
    delete_object(inner, stored, body.get("deleteOptions") or {})
    return Answer(success(201), 201)


def finalize(call: Call) -> Answer:
    """PUT of a namespace's finalize: replaces spec.finalizers; the last one to go removes the namespace."""
    body = check_kind(call, call.body())
    stored = fetch(call)
    wanted = (body.get("metadata") or {}).get("resourceVersion")
    if wanted and wanted != stored["metadata"]["resourceVersion"]:
        raise conflict(call.resource.subject(call.target.name))
    finalizers = (body.get("spec") or {}).get("finalizers") or []
    spec = {**stored.get("spec", {}), "finalizers": finalizers}
    if not finalizers:
        del spec["finalizers"]
    obj = {**stored, "metadata": {**stored["metadata"]}, "spec": spec}
    store = call.cluster.store
    if obj["metadata"].get("deletionTimestamp") and is_finished(call, obj):
        return Answer(obj if call.dry_run else store.remove(call.resource.storage, obj))
    return Answer(obj if call.dry_run else store.put(call.resource.storage, obj))


def serve(call: Call, method: str) -> Answer:
    """Any of the above; ApiError 405 where the subresource does not take the method."""
    sub = call.target.subresource
    if sub == "scale" and method == "GET":
        return Answer(show_scale(call, fetch(call)))
    if sub == "scale" and method in ("PUT", "PATCH"):
        return write_scale(call, method)
    if method == "POST" and sub == "binding":
        return bind(call)
    if method == "POST" and sub == "eviction":
        return evict(call)
    if method == "PUT" and sub == "finalize":
        return finalize(call)
    raise method_not_allowed()
