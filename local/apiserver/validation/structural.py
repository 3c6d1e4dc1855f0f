"""Custom objects against their definition's schema, worded as kube-openapi words it.

CEL rules (x-kubernetes-validations) are not evaluated: see docs/local-api-server.md.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from local.apiserver.errors import FieldError, Object, duplicate, invalid_value, required, show, unsupported
from local.apiserver.schemas import child

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_SHAPES = {
    "properties": "object",
    "pattern": "string",
    "required": "array",
    "enum": "array",
    "allOf": "array",
    "anyOf": "array",
    "oneOf": "array",
    "x-kubernetes-list-map-keys": "array",
    **dict.fromkeys(("maximum", "minimum"), "number"),
    **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems", "maxProperties"), "integer"),
}
"""Keywords of a schema that objects are checked by, and what each must be."""
_JSON = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def _type_error(path: str, value: Any, wanted: str) -> FieldError:
    got = _JSON.get(type(value), "null")
    text = f"{path} in body must be of type {wanted}: {show(got)}"
    return FieldError(path, "FieldValueTypeInvalid", f"Invalid value: {show(got)}: {text}")


@functools.cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A Go regular expression as Python's; re.error where the two differ by more than flags and `\\z`.

    Go allows `(?i)` anywhere, Python only at the start: flags are taken to hold for the whole pattern.
    """
    flags = "".join(sorted(set("".join(re.findall(r"\(\?([ims]+)\)", pattern)))))
    plain = re.sub(r"\(\?[ims]+\)", "", pattern).replace(r"\z", r"\Z")
    return re.compile((f"(?{flags})" if flags else "") + plain)


def check_definition(schema: Any, path: str) -> list[FieldError]:
    """What keeps a definition's schema from being one that objects can be checked against."""
    if not isinstance(schema, dict):
        return [_type_error(path, schema, "object")]
    errors: list[FieldError] = []
    if schema.get("type", "object") not in list(_TYPES):
        errors.append(unsupported(f"{path}.type", schema["type"], list(_TYPES)))
    for field, wanted in _SHAPES.items():
        if field in schema and not _has_type(schema[field], wanted):
            errors.append(_type_error(f"{path}.{field}", schema[field], wanted))
    for field in ("required", "x-kubernetes-list-map-keys"):
        names = schema.get(field)
        for i, name in enumerate(names if isinstance(names, list) else ()):
            if not isinstance(name, str):
                errors.append(_type_error(f"{path}.{field}[{i}]", name, "string"))
    if errors:
        return errors
    if "pattern" in schema:
        try:
            compile_pattern(schema["pattern"])
        except re.error as error:
            text = f"must be a valid regular expression, but isn't: {error}"
            errors.append(invalid_value(f"{path}.pattern", schema["pattern"], text))
    for name, below in schema.get("properties", {}).items():
        errors += check_definition(below, f"{path}.properties[{name}]")
    for field in ("items", "additionalProperties", "not"):
        if field in schema and not (field == "additionalProperties" and isinstance(schema[field], bool)):
            errors += check_definition(schema[field], f"{path}.{field}")
    for field in ("allOf", "anyOf", "oneOf"):
        for i, below in enumerate(schema.get(field, ())):
            errors += check_definition(below, f"{path}.{field}[{i}]")
    return errors


def _has_type(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(wanted, (object,)))


def check_schema(obj: Object, schema: Object) -> list[FieldError]:
    """Everything in `obj` that its schema refuses; apiVersion, kind and metadata are checked elsewhere."""
    own = {
        k: v for k, v in schema.get("properties", {}).items() if k not in ("apiVersion", "kind", "metadata")
    }
    return _check(obj, {**schema, "properties": own}, "")


def _check(value: Any, schema: Object, path: str) -> list[FieldError]:
    if value is None and schema.get("nullable"):
        return []
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            return _check_string(value, schema, path) if isinstance(value, str) else []
        return [_type_error(path, value, "integer,string")]
    wanted = schema.get("type", "")
    if wanted and not _has_type(value, wanted):
        return [_type_error(path, value, wanted)]
    errors = _check_choices(value, schema, path)
    if "enum" in schema and value not in schema["enum"]:
        errors.append(unsupported(path, value, schema["enum"]))
    if isinstance(value, str):
        errors += _check_string(value, schema, path)
    elif isinstance(value, dict):
        errors += _check_object(value, schema, path)
    elif isinstance(value, list):
        errors += _check_array(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        errors += _check_number(value, schema, path)
    return errors


def _in_body(path: str, value: Any, rule: str) -> FieldError:
    return invalid_value(path, value, f"{path} in body {rule}")


def _check_string(value: str, schema: Object, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if len(value) > schema.get("maxLength", len(value)):
        text = f"Too long: may not be more than {schema['maxLength']} bytes"
        errors.append(FieldError(path, "FieldValueTooLong", text))
    if len(value) < schema.get("minLength", 0):
        errors.append(_in_body(path, value, f"should be at least {schema['minLength']} chars long"))
    if "pattern" in schema and not compile_pattern(schema["pattern"]).search(value):
        errors.append(_in_body(path, value, f"should match '{schema['pattern']}'"))
    if schema.get("format") == "date-time":
        try:
            datetime.fromisoformat(value)
        except ValueError:
            errors.append(_in_body(path, value, f"must be of type date-time: {show(value)}"))
    return errors


def _check_number(value: float, schema: Object, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if "maximum" in schema and value > schema["maximum"]:
        errors.append(_in_body(path, value, f"should be less than or equal to {schema['maximum']}"))
    if "minimum" in schema and value < schema["minimum"]:
        errors.append(_in_body(path, value, f"should be greater than or equal to {schema['minimum']}"))
    return errors


def _check_object(value: Object, schema: Object, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for name in schema.get("required") or ():
        if name not in value:
            errors.append(required(f"{path}.{name}" if path else name))
    if len(value) > schema.get("maxProperties", len(value)):
        text = f"Too many: {len(value)}: must have at most {schema['maxProperties']} items"
        errors.append(FieldError(path, "FieldValueTooMany", text))
    for name, entry in value.items():
        below = child(schema, name)
        if below:
            errors += _check(entry, below, f"{path}.{name}" if path else name)
    return errors


def _check_array(value: list[Any], schema: Object, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if len(value) > schema.get("maxItems", len(value)):
        text = f"Too many: {len(value)}: must have at most {schema['maxItems']} items"
        errors.append(FieldError(path, "FieldValueTooMany", text))
    if len(value) < schema.get("minItems", 0):
        errors.append(_in_body(path, len(value), f"should have at least {schema['minItems']} items"))
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys or schema.get("x-kubernetes-list-type") == "set":
        seen: list[Any] = []
        for i, entry in enumerate(value):
            own = {k: entry.get(k) for k in keys} if keys and isinstance(entry, dict) else entry
            if own in seen:
                errors.append(duplicate(f"{path}[{i}]", own))
            seen.append(own)
    inner = schema.get("items") or {}
    for i, entry in enumerate(value):
        errors += _check(entry, inner, f"{path}[{i}]")
    return errors


def _check_choices(value: Any, schema: Object, path: str) -> list[FieldError]:
    """allOf, anyOf, oneOf and not."""

    def passing(choices: Sequence[Object]) -> int:
        return sum(not _check(value, c, path) for c in choices)

    errors: list[FieldError] = []
    for part in schema.get("allOf") or ():
        errors += _check(value, part, path)
    if schema.get("anyOf") and not passing(schema["anyOf"]):
        errors.append(_in_body(path, value, "must validate at least one schema (anyOf)"))
    if schema.get("oneOf") and passing(schema["oneOf"]) != 1:
        errors.append(_in_body(path, value, "must validate one and only one schema (oneOf)"))
    if schema.get("not") and passing([schema["not"]]):
        errors.append(_in_body(path, value, "must not validate the schema (not)"))
    return errors
