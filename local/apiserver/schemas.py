"""OpenAPI v3 structural schemas at work: decoding built-in kinds, pruning and defaulting custom ones."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from local.apiserver.errors import Object, bad_request
from local.apiserver.models import resolve

PRESERVE = "x-kubernetes-preserve-unknown-fields"
_GO = {"string": "string", "integer": "int32", "boolean": "bool", "number": "float64"}
_KINDS = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}


def child(schema: Object, name: str) -> Object | None:
    """The schema of a field of an object or map; None for a field that is not declared."""
    declared: Object | None = schema.get("properties", {}).get(name)
    if declared is not None:
        return resolve(declared)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        return resolve(more)
    return {} if more is True or not schema or schema.get(PRESERVE) else None


def items(schema: Object) -> Object:
    return resolve(schema.get("items") or {})


def list_keys(schema: Object) -> tuple[str, ...]:
    """The keys of a list that merges by key; () for atomic lists and sets."""
    return tuple(schema.get("x-kubernetes-list-map-keys") or ())


@dataclass
class Decoded:
    """`unknown` are paths of dropped fields, as strict validation names them."""

    value: Any
    unknown: list[str] = field(default_factory=list)


class _Decoder:
    """Turns JSON into what Go's types would hold: unknown fields and nulls dropped, types enforced."""

    def __init__(self, kind: str, api_version: str) -> None:
        self._kind, self._version = kind, api_version
        self.unknown: list[str] = []

    def refuse(self, value: Any, model: str, path: str, wanted: str) -> Exception:
        what = _KINDS.get(type(value), "null")
        if what == "number" and wanted.startswith("int"):
            what = f"number {value}"
        where = f"Go struct field {model}.{path}" if path else "Go value"
        return bad_request(
            f'{self._kind} in version "{self._version}" cannot be handled as a {self._kind}: '
            f"json: cannot unmarshal {what} into {where} of type {wanted}"
        )

    def decode(self, value: Any, schema: Object, path: str, model: str) -> Any:
        kind = schema.get("type")
        if kind == "object":
            if not isinstance(value, dict):
                inner = schema.get("x-model", "")
                raise self.refuse(value, model, path, f"v1.{inner[2:]}" if inner else "map[string]string")
            return self._object(value, schema, path, model)
        if kind == "array":
            if not isinstance(value, list):
                raise self.refuse(value, model, path, "[]" + _GO.get(items(schema).get("type", ""), "struct"))
            inner = items(schema)
            return [
                self.decode(v, inner, f"{path}[{i}]", model) for i, v in enumerate(value) if v is not None
            ]
        return self._scalar(value, kind, path, model)

    def _scalar(self, value: Any, kind: str | None, path: str, model: str) -> Any:
        if kind is None:
            return value
        wanted = _GO[kind]
        if kind == "string":
            if isinstance(value, str):
                return value
            if not isinstance(value, bool) and isinstance(value, (int, float)) and _is_quantity(path):
                return str(value)
        elif kind == "boolean":
            if isinstance(value, bool):
                return value
        elif kind == "integer":
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            if isinstance(value, float) and value.is_integer():
                return int(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        raise self.refuse(value, model, path, wanted)

    def _object(self, value: Object, schema: Object, path: str, model: str) -> Object:
        inner_model = schema.get("x-model", model)
        inner_model = inner_model[2:] if inner_model.startswith("V1") else inner_model
        keep = set(schema.get("required") or ())
        result: Object = {}
        for name, entry in value.items():
            below = child(schema, name)
            where = f"{path}.{name}" if path else name
            if below is None:
                self.unknown.append(where)
            elif entry is not None:
                inner = self.decode(entry, below, where, inner_model)
                if name in keep or not _is_empty(inner, below):
                    result[name] = inner
        return result


def _is_empty(value: Any, schema: Object) -> bool:
    """Whether Go's `omitempty` would leave it out: empty lists and maps, but not empty structs."""
    if value == [] and schema.get("type") == "array":
        return True
    return value == {} and "additionalProperties" in schema


def _is_quantity(path: str) -> bool:
    parts = path.split(".")
    quantities = {"limits", "requests", "capacity", "allocatable", "hard", "used", "overhead"}
    return parts[-1] in ("sizeLimit", "divisor") or any(p in quantities for p in parts[-3:-1])


def decode(value: Object, schema: Object, kind: str, api_version: str) -> Decoded:
    """A built-in object as its Go type would hold it; ApiError 400 where a type does not fit."""
    decoder = _Decoder(kind, api_version)
    decoded = decoder.decode(value, schema, "", schema.get("x-model", kind))
    return Decoded(decoded, decoder.unknown)


def prune(value: Object, schema: Object) -> Decoded:
    """A custom object without undeclared fields (structural pruning); metadata is left to its own schema."""
    unknown: list[str] = []

    def walk(value: Any, schema: Object, path: str) -> Any:
        if isinstance(value, list):
            inner = schema.get("items") or {}
            return [walk(v, inner, f"{path}[{i}]") for i, v in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if schema.get("x-kubernetes-embedded-resource"):
            schema = {**schema, "properties": {**_EMBEDDED, **schema.get("properties", {})}}
        result: Object = {}
        for name, entry in value.items():
            where = f"{path}.{name}" if path else name
            below = child(schema, name)
            if below is None:
                unknown.append(where)
            else:
                result[name] = walk(entry, below, where) if below else entry
        return result

    return Decoded(
        walk(value, {**schema, "properties": {**schema.get("properties", {}), **_EMBEDDED}}, ""), unknown
    )


_EMBEDDED: Object = {"apiVersion": {}, "kind": {}, "metadata": {PRESERVE: True}}


def fill_defaults(value: Any, schema: Object) -> Any:
    """`value` with the schema's defaults, changed in place; nulls of fields with a default give way to it."""
    if isinstance(value, dict):
        for name, below in schema.get("properties", {}).items():
            if "default" in below and (
                name not in value or (value[name] is None and not below.get("nullable"))
            ):
                value[name] = copy.deepcopy(below["default"])
        for name, entry in value.items():
            below = child(schema, name)
            if below:
                fill_defaults(entry, below)
    elif isinstance(value, list):
        inner = schema.get("items") or {}
        for entry in value:
            fill_defaults(entry, inner)
    return value
