"""What `kubectl get` asks for: Tables, and PartialObjectMetadata."""

from __future__ import annotations

import json
from typing import Any

from local.apiserver.cells import age, ago
from local.apiserver.columns import COLUMNS, Column
from local.apiserver.errors import Object, not_acceptable
from local.apiserver.jsonpaths import find
from local.apiserver.resources import Resource

_META = "meta.k8s.io/v1"


def wanted_form(accept: str) -> str:
    """Table, PartialObjectMetadata, PartialObjectMetadataList or "" (plain), by the Accept header.

    ApiError 406 where none of what it asks for is served.
    """
    if not accept:
        return ""
    for clause in accept.split(","):
        media, *parameters = (p.strip() for p in clause.split(";"))
        values = dict(p.split("=", 1) for p in parameters if "=" in p)
        if media not in ("application/json", "application/*", "*/*"):
            continue
        form = values.get("as", "")
        if not form:
            return ""
        known = form in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
        if known and values.get("g") == "meta.k8s.io" and values.get("v") == "v1":
            return form
    raise not_acceptable(["application/json"])


def partial(obj: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": obj.get("metadata", {})}


def partial_list(listed: Object) -> Object:
    items = [partial(o) for o in listed["items"]]
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": _META,
        "metadata": listed["metadata"],
        "items": items,
    }


def columns_of(resource: Resource) -> tuple[Column, ...]:
    if resource.custom:
        return tuple(_custom_column(c) for c in resource.columns) or (Column("Age", age),)
    return COLUMNS.get((resource.group, resource.plural)) or (Column("Age", age),)


def _custom_column(definition: Object) -> Column:
    path, kind = definition["jsonPath"], definition.get("type", "string")

    def cell(obj: Object) -> Any:
        found = find(obj, path)
        if not found:
            return None
        if kind == "date":
            return ago(str(found[0]))
        if kind in ("integer", "number", "boolean"):
            return found[0]
        return ",".join(v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for v in found)

    return Column(definition["name"], cell, kind, definition.get("priority", 0))


def _cell(column: Column, obj: Object) -> Any:
    try:
        return column.cell(obj)
    except KeyError:  # the object of a bookmark has nothing but metadata
        return None


def table(
    resource: Resource, objects: list[Object], meta: Object, include: str, heading: bool = True
) -> Object:
    """A Table with one row an object; `include` is Metadata, Object or None, as includeObject asks."""
    columns = columns_of(resource)
    definitions = [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}]
    definitions += [
        {"name": c.name, "type": c.type, "format": "", "description": "", "priority": c.priority}
        for c in columns
    ]
    rows = []
    for obj in objects:
        row: Object = {"cells": [obj["metadata"].get("name", ""), *(_cell(c, obj) for c in columns)]}
        if include != "None":
            row["object"] = obj if include == "Object" else partial(obj)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": _META,
        "metadata": meta,
        "columnDefinitions": definitions if heading else None,
        "rows": rows,
    }


def in_form(
    resource: Resource, body: Object, form: str, include: str = "Metadata", heading: bool = True
) -> Object:
    """An answer in the form that was asked for; a Status stays what it is."""
    if not form or body.get("kind") == "Status":
        return body
    listed = isinstance(body.get("items"), list) and str(body.get("kind", "")).endswith("List")
    if form == "Table":
        objects = body["items"] if listed else [body]
        meta = (
            body["metadata"] if listed else {"resourceVersion": body["metadata"].get("resourceVersion", "")}
        )
        return table(resource, objects, meta, include, heading)
    return partial_list(body) if listed else partial(body)
