"""What controllers ask of pods: ready, available, active; and which owner a change concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from local.client.informer import Cache
from local.client.kinds import PODS, Key, Obj, Resource
from local.client.objects import age, condition, controller_of, deleting, is_true


def ended(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def active(pod: Obj) -> bool:
    return not deleting(pod) and not ended(pod)


def ready(pod: Obj) -> bool:
    return is_true(pod, "Ready")


def available_in(pod: Obj, seconds: float) -> float | None:
    """0 when the pod has been ready for `seconds`, what is left of them before, None when not ready."""
    entry = condition(pod, "Ready")
    if entry is None or entry["status"] != "True":
        return None
    return max(0.0, seconds - age(entry.get("lastTransitionTime"))) if seconds else 0.0


def owned(cache: Cache, resource: Resource, owner: Obj) -> Iterator[Obj]:
    """Objects of the resource in the owner's namespace whose controller it is."""
    uid = owner["metadata"]["uid"]
    for obj in cache.of(resource).items(owner["metadata"]["namespace"]):
        reference = controller_of(obj)
        if reference and reference["uid"] == uid:
            yield obj


def enqueue_owner(kind: str, add: Callable[[Key], None]) -> Callable[[Obj | None, Obj | None], None]:
    """A change handler that adds the key of the changed object's controller when it is of this kind."""

    def handler(old: Obj | None, new: Obj | None) -> None:
        for obj in (old, new):
            reference = controller_of(obj) if obj else None
            if obj and reference and reference["kind"] == kind:
                add((obj["metadata"].get("namespace", ""), reference["name"]))

    return handler


def pod_from_template(template: Obj, owner: Obj, reference: Obj) -> Obj:
    """A new pod of a workload: template's labels, annotations and spec, named after the owner."""
    meta = template.get("metadata") or {}
    return {
        "metadata": {
            "generateName": f"{owner['metadata']['name']}-",
            "namespace": owner["metadata"]["namespace"],
            "labels": dict(meta.get("labels") or {}),
            **({"annotations": dict(meta["annotations"])} if meta.get("annotations") else {}),
            **({"finalizers": list(meta["finalizers"])} if meta.get("finalizers") else {}),
            "ownerReferences": [reference],
        },
        "spec": template["spec"],
    }


def pods_of(cache: Cache, owner: Obj) -> list[Obj]:
    return list(owned(cache, PODS, owner))
