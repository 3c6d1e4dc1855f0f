"""Validation of objects beyond their types, worded as pkg/apis/*/validation words it."""

from __future__ import annotations

from local.apiserver.errors import FieldError, Object
from local.apiserver.resources import Resource
from local.apiserver.validation.kinds import CHECKS
from local.apiserver.validation.names import check_metadata
from local.apiserver.validation.structural import check_schema


def validate(resource: Resource, obj: Object, old: Object | None, subresource: str = "") -> list[FieldError]:
    """What is wrong with `obj`, which is decoded and completed; `old` is the object before an update."""
    errors = check_metadata(resource, obj["metadata"], (old or {}).get("metadata"))
    if resource.custom:
        return errors + check_schema(obj, resource.schema)
    check = CHECKS.get(resource.storage)
    if check is not None and subresource != "status":
        errors += check(obj, old)
    return errors
