"""The Params of the `model_release` DAG, from the spec's own JSON schema: one truth for form, REST and
plan."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from trainyard.catalogue import names
from trainyard.spec import FIXED, MODEL_NAME, REVISION, Spec


class Constant(dict[str, Any]):
    """A part of a schema, never changed. Airflow copies a DAG's Params for every operator, three times: a
    third of the time that a parse took."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Constant:
        return self


@cache
def overrides_schema() -> dict[str, Any]:
    """The spec's schema with nothing required: any part of a spec can be laid over its catalogue entry."""
    schema = _inlined(Spec.model_json_schema())
    loose: dict[str, Any] = _loosened(schema)
    for fixed in FIXED:
        loose["properties"].pop(fixed)
    loose["properties"] = Constant(loose["properties"])
    return loose


def params_schema(releases_dir: Path) -> dict[str, dict[str, Any]]:
    """JSON schema of each Param. Reads the listing of the catalogue's folder, no file in it."""
    known = names(releases_dir)
    return {
        "release": {
            "type": "string",
            "title": "Release",
            "description": "The entry of the catalogue (include/releases/) that is released.",
            # A form with one choice is filled in by itself.
            **({"enum": known} if known else {"pattern": MODEL_NAME}),
        },
        "revision": {
            "type": ["null", "string"],
            "title": "Revision",
            "description": "Branch, tag or commit on the Hub; empty: the one that the entry tracks.",
            "pattern": REVISION,
            "maxLength": 128,
        },
        "overrides": {
            # Airflow checks the schema itself in every task: five times faster by this draft than by its
            # successors.
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": ["null", "object"],
            "title": "Overrides",
            "description": "Laid over the entry for this release only, as JSON. Same fields as the entry.",
            "section": "Advanced",
            **{
                key: value
                for key, value in overrides_schema().items()
                if key in ("properties", "additionalProperties")
            },
        },
        "request": {
            "type": ["null", "string"],
            "title": "Request id",
            "description": "Anything new here makes an equal request a new release on purpose.",
            "pattern": "^[A-Za-z0-9_.-]{0,64}$",
            "section": "Advanced",
        },
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    definitions = schema.get("$defs", {})

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                name = node["$ref"].rsplit("/", 1)[-1]
                return walk({**definitions[name], **{k: v for k, v in node.items() if k != "$ref"}})
            return {key: walk(value) for key, value in node.items() if key != "$defs"}
        return [walk(item) for item in node] if isinstance(node, list) else node

    walked = walk(schema)
    assert isinstance(walked, dict)
    return walked


def _loosened(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            # A list is replaced as a whole, so what is in it is complete.
            key: value if key == "items" else _loosened(value)
            for key, value in node.items()
            if key not in ("required", "default", "title")
        } | ({} if "properties" not in node else {"properties": _loosened_properties(node["properties"])})
    return [_loosened(item) for item in node] if isinstance(node, list) else node


def _loosened_properties(properties: dict[str, Any]) -> dict[str, Any]:
    # Property *names* may be `title` or `default`; only keywords are taken out.
    return {name: _loosened(value) for name, value in properties.items()}
