"""OpenAPI documents: v3 per group and version, as kubectl reads them; v2 without definitions."""

from __future__ import annotations

import hashlib
from typing import Any

from local.apiserver.admitting import schema_of
from local.apiserver.errors import Object
from local.apiserver.models import PREFIX, definition, ref
from local.apiserver.resources import Registry, Resource

_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
)
_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")
INFO: Object = {"title": "Kubernetes", "version": "v1.36.2"}


def _path_of(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _stamp(registry: Registry, group: str, version: str) -> str:
    names = [(r.plural, id(r)) for r in registry.of_version(group, version)]
    return hashlib.sha256(repr(names).encode()).hexdigest()[:32].upper()


def index(registry: Registry) -> Object:
    """The paths of all v3 documents; the hash changes with what a version serves."""
    paths: Object = {}
    for group, versions in registry.versions().items():
        for version in versions:
            path = _path_of(group, version)
            url = f"/openapi/v3/{path}?hash={_stamp(registry, group, version)}"
            paths[path] = {"serverRelativeURL": url}
    return {"paths": paths}


def _name_of(resource: Resource) -> str:
    if not resource.custom:
        return str(schema_of(resource)["x-model"])
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _gvk(resource: Resource) -> Object:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _operations(resource: Resource) -> Object:
    """The paths of one resource: what kubectl looks up is the PATCH and its query parameters."""
    base = "/" + _path_of(resource.group, resource.version)
    where = (
        f"{base}/namespaces/{{namespace}}/{resource.plural}"
        if resource.namespaced
        else f"{base}/{resource.plural}"
    )
    shown = {
        "200": {"description": "OK", "content": {"application/json": {"schema": ref(_name_of(resource))}}}
    }
    parameters = [{"name": n, "in": "query", "schema": {"type": "string"}} for n in _QUERY]
    kind = {"x-kubernetes-group-version-kind": _gvk(resource), "responses": shown}
    body = {"content": {m: {"schema": {"type": "object"}} for m in _PATCHES}}
    listing = {"x-kubernetes-action": "list", **kind}
    creating = {"x-kubernetes-action": "post", "parameters": parameters, **kind}
    patching = {"x-kubernetes-action": "patch", "parameters": parameters, "requestBody": body, **kind}
    reading = {"x-kubernetes-action": "get", **kind}
    return {
        where: {"get": listing, "post": creating},
        f"{where}/{{name}}": {"get": reading, "patch": patching},
    }


def _refs(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        found = {schema["$ref"].removeprefix(PREFIX)} if isinstance(schema.get("$ref"), str) else set[str]()
        return found.union(*(_refs(v) for v in schema.values()))
    if isinstance(schema, list):
        return set[str]().union(*(_refs(v) for v in schema))
    return set()


def document(registry: Registry, group: str, version: str) -> Object | None:
    """The v3 document of one version; None if it is not served."""
    served = [r for r in registry.of_version(group, version) if "get" in r.verbs]
    if not served:
        return None
    paths: Object = {}
    schemas: Object = {}
    wanted: set[str] = set()
    for resource in served:
        paths |= _operations(resource)
        schema = {**schema_of(resource), "x-kubernetes-group-version-kind": [_gvk(resource)]}
        if resource.custom:
            schema["properties"] = {**schema["properties"], "metadata": ref("V1ObjectMeta")}
        schemas[_name_of(resource)] = schema
        wanted |= _refs(schema)
    while wanted:
        name = wanted.pop()
        if name not in schemas:
            schemas[name] = definition(name)
            wanted |= _refs(schemas[name])
    return {"openapi": "3.0.0", "info": INFO, "paths": paths, "components": {"schemas": schemas}}


def legacy() -> Object:
    """The v2 document: no paths and no definitions; current clients read v3."""
    return {"swagger": "2.0", "info": INFO, "paths": {}, "definitions": {}}
