"""Deletion: grace periods of pods, finalizers, propagation policies, collections."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from local.apiserver.admitting import Answer
from local.apiserver.calls import Call
from local.apiserver.errors import Object, bad_request, conflict, forbidden, success
from local.apiserver.preparing import release_address
from local.apiserver.reading import fetch, list_objects
from local.apiserver.resources import CRDS, NAMESPACES, PODS
from local.apiserver.views import to_view
from local.apiserver.writing import is_finished

_PERMANENT = ("default", "kube-system", "kube-public")
_RETURNED = {PODS, ("", "services"), ("", "serviceaccounts"), NAMESPACES, CRDS}
"""Resources whose deletion answers with the object instead of a Status."""
_POLICY_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


def options_of(call: Call) -> Object:
    """DeleteOptions from body and query; ApiError 400 for a policy that does not exist."""
    options: Object = {}
    if call.raw.strip():
        options = call.body()
        if not isinstance(options, dict) or options.get("kind", "DeleteOptions") != "DeleteOptions":
            raise bad_request("the object provided is unrecognized (must be of type DeleteOptions)")
    for name in ("gracePeriodSeconds", "propagationPolicy", "orphanDependents"):
        if name in call.query:
            text = call.query[name]
            options = {**options, name: json.loads(text) if name != "propagationPolicy" else text}
    if "orphanDependents" in options:
        options["propagationPolicy"] = "Orphan" if options["orphanDependents"] else "Background"
    policy = options.get("propagationPolicy")
    if policy not in (None, "Background", *_POLICY_FINALIZERS):
        raise bad_request(
            f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "{policy}": '
            'supported values: "Foreground", "Background", "Orphan", "nil"'
        )
    return options


def delete(call: Call) -> Answer:
    """DELETE of one object: the object while it lingers, else a Status."""
    return Answer(delete_object(call, fetch(call), options_of(call)))


def delete_object(call: Call, stored: Object, options: Object) -> Object:
    resource, meta = call.resource, stored["metadata"]
    name = meta["name"]
    _check_preconditions(call, stored, options)
    if resource.storage == NAMESPACES and name in _PERMANENT:
        raise forbidden(resource.subject(name), "this namespace may not be deleted")
    grace = _grace_seconds(call, stored, options)
    obj = {**stored, "metadata": {**meta}}
    marked = obj["metadata"]
    first = "deletionTimestamp" not in meta
    if first or grace < meta.get("deletionGracePeriodSeconds", 0):
        when = datetime.now(UTC) + timedelta(seconds=grace)
        marked["deletionTimestamp"] = when.strftime("%Y-%m-%dT%H:%M:%SZ")
        marked["deletionGracePeriodSeconds"] = grace
        if first and "generation" in meta:
            marked["generation"] = meta["generation"] + 1
    if first:
        finalizer = _POLICY_FINALIZERS.get(options.get("propagationPolicy", ""))
        if finalizer and finalizer not in marked.get("finalizers", ()):
            marked["finalizers"] = [*marked.get("finalizers", ()), finalizer]
    if resource.storage == NAMESPACES:
        marked.pop("deletionGracePeriodSeconds", None)
        obj["status"] = {**stored.get("status", {}), "phase": "Terminating"}
    if resource.storage == CRDS and first:
        marked.pop("deletionGracePeriodSeconds", None)
        marked["finalizers"] = [*marked.get("finalizers", ()), "customresourcecleanup.apiextensions.k8s.io"]
    store = call.cluster.store
    details = {**resource.subject(name).details(resource.plural), "uid": meta["uid"]}
    if is_finished(call, obj):
        if not call.dry_run:
            release_address(call, stored)
            obj = store.remove(resource.storage, obj if resource.storage == PODS else stored)
        if resource.storage in _RETURNED:
            return to_view(resource, obj)
        return success(details=details)
    if marked != meta and not call.dry_run:
        obj = store.put(resource.storage, obj)
    return to_view(resource, obj)


def _check_preconditions(call: Call, stored: Object, options: Object) -> None:
    wanted, meta = options.get("preconditions") or {}, stored["metadata"]
    for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(field) and wanted[field] != meta[field]:
            text = f"Precondition failed: {label} in precondition: {wanted[field]}, "
            text += f"{label} in object meta: {meta[field]}"
            raise conflict(call.resource.subject(meta["name"]), text)


def _grace_seconds(call: Call, stored: Object, options: Object) -> int:
    """Seconds until removal; only a pod that runs on a node has any."""
    if call.resource.storage != PODS:
        return 0
    spec = stored["spec"]
    asked = options.get("gracePeriodSeconds")
    grace = int(asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30))
    if not spec.get("nodeName") or stored.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    already = stored["metadata"].get("deletionGracePeriodSeconds")
    return min(max(grace, 0), already) if already is not None else max(grace, 0)


def delete_collection(call: Call) -> Answer:
    """DELETE of a list: every selected object, each by the rules of its own deletion."""
    options, listed = options_of(call), list_objects(call)
    for shown in listed["items"]:
        meta = shown["metadata"]
        stored = call.collection.get(f"{meta.get('namespace', '')}/{meta['name']}")
        if stored is not None:
            delete_object(call, stored, options)
    return Answer(listed)
