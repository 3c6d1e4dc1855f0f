"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902)."""

from __future__ import annotations

from typing import Any

import jsonpatch

from local.apiserver.errors import ApiError, Object


def merge_patch(target: Any, patch: Any) -> Any:
    """A new value; neither argument is changed, but unchanged parts are shared."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def json_patch(target: Object, operations: Any) -> Object:
    """A new object; ApiError 422 where an operation does not fit, as the API server answers it."""
    try:
        patched: Object = jsonpatch.JsonPatch(operations).apply(target)
        return patched
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError) as error:
        message = "the server rejected our request due to an error in our request"
        raise ApiError(422, "Invalid", message, {}) from error
