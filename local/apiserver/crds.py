"""CustomResourceDefinitions: what a definition serves, and taking it in and out of service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from local.apiserver.calls import Call, Cluster, now
from local.apiserver.errors import Object
from local.apiserver.resources import CRDS, METADATA_FIELDS, Resource

_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


def resources_of(definition: Object) -> list[Resource]:
    """The resources that a definition serves, one a served version."""
    spec, found = definition["spec"], list[Resource]()
    names = spec["names"]
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        fields = {
            f["jsonPath"].lstrip("."): f["jsonPath"].lstrip(".")
            for f in version.get("selectableFields") or ()
        }
        found.append(
            Resource(
                group=spec["group"],
                version=version["name"],
                plural=names["plural"],
                kind=names["kind"],
                namespaced=spec["scope"] == "Namespaced",
                singular=names.get("singular") or names["kind"].lower(),
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                subresources=tuple(sorted(subresources)),
                fields={**METADATA_FIELDS, **fields},
                schema=(version.get("schema") or {}).get("openAPIV3Schema") or {},
                list_kind=names.get("listKind") or f"{names['kind']}List",
                custom=True,
                columns=tuple(version.get("additionalPrinterColumns") or ()),
                scale=subresources.get("scale") or {},
            )
        )
    return found


def established(definition: Object) -> Object:
    """The definition's status once it is served."""
    spec, when = definition["spec"], now()
    names = spec["names"]
    accepted = {
        "singular": names["kind"].lower(),
        "listKind": f"{names['kind']}List",
        **names,
    }

    def condition(kind: str, reason: str, message: str) -> Object:
        base = {"type": kind, "status": "True", "lastTransitionTime": when}
        return {**base, "reason": reason, "message": message}

    return {
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": accepted,
        "storedVersions": [v["name"] for v in spec["versions"] if v.get("storage")],
    }


def serve_definition(cluster: Cluster, definition: Object) -> None:
    """Serves (again) what a stored definition says; the first time also marks it as established."""
    spec = definition["spec"]
    cluster.registry.remove(spec["group"], spec["names"]["plural"])
    for resource in resources_of(definition):
        cluster.registry.add(resource)
    conditions = (definition.get("status") or {}).get("conditions") or ()
    if not any(c["type"] == "Established" for c in conditions):
        marked = {**definition, "metadata": {**definition["metadata"]}, "status": established(definition)}
        cluster.store.put(CRDS, marked)


def retire_definition(cluster: Cluster, definition: Object) -> None:
    """Removes all objects of a deleted definition, what it serves, and then the definition itself."""
    spec = definition["spec"]
    where = (spec["group"], spec["names"]["plural"])
    collection = cluster.store.collection(where)
    for _, obj in list(collection.scan(None)):
        cluster.store.remove(where, obj)
    cluster.registry.remove(*where)
    cluster.store.drop(where)
    meta = {**definition["metadata"]}
    meta["finalizers"] = [f for f in meta.get("finalizers", ()) if f != _CLEANUP]
    rest = {**definition, "metadata": meta}
    if meta["finalizers"]:
        cluster.store.put(CRDS, rest)
    else:
        cluster.store.remove(CRDS, rest)


def after_write(call: Call) -> None:
    """Follows a write of a definition."""
    if call.resource.storage != CRDS or call.dry_run:
        return
    for _, definition in list(call.collection.scan(None)):
        if definition["metadata"].get("deletionTimestamp"):
            if _CLEANUP in definition["metadata"].get("finalizers", ()):
                retire_definition(call.cluster, definition)
        else:
            serve_definition(call.cluster, definition)


def read_definitions(path: Path) -> list[Object]:
    """The CustomResourceDefinitions in a YAML file; ValueError if it holds anything else."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = []
    with path.open(encoding="utf-8") as stream:
        for document in yaml.load_all(stream, Loader=loader):
            if document is None:
                continue
            if not isinstance(document, dict) or document.get("kind") != "CustomResourceDefinition":
                raise ValueError(
                    f"{path}: holds something else than a CustomResourceDefinition; leave it out"
                )
            found.append(document)
    return found
