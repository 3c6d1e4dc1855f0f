"""get, list and the page tokens of lists."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

from local.apiserver.calls import Call
from local.apiserver.errors import (
    ApiError,
    Object,
    Subject,
    bad_request,
    forbidden_field,
    gone,
    invalid,
    invalid_value,
    not_found,
)
from local.apiserver.selectors import Predicate, field_predicate, label_predicate
from local.apiserver.views import to_view


def fetch(call: Call) -> Object:
    """The stored object that the call names; ApiError 404."""
    found = call.collection.get(call.key())
    if found is None:
        raise not_found(call.resource.subject(call.target.name))
    return found


def get(call: Call) -> Object:
    return to_view(call.resource, fetch(call))


def selection(call: Call) -> Predicate | None:
    """labelSelector and fieldSelector as one predicate over stored objects."""
    label = label_predicate(call.query.get("labelSelector", ""))
    field = field_predicate(call.query.get("fieldSelector", ""), call.resource.fields)
    by_name = call.target.name
    if by_name:  # a watch on a single object
        named = field

        def field(obj: Object) -> bool:
            return obj["metadata"]["name"] == by_name and (named is None or named(obj))

    if label is None or field is None:
        return label or field
    return lambda obj: label(obj) and field(obj)


def number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def requested_revision(call: Call) -> int | None:
    """resourceVersion of a list or watch; None if unset. ApiError 400 or 504."""
    text = call.query.get("resourceVersion", "")
    if not text:
        return None
    if not text.isdigit():
        raise bad_request(
            "resourceVersion: "
            + invalid_value("", text, f'strconv.ParseUint: parsing "{text}": invalid syntax').text
        )
    revision, current = int(text), call.cluster.store.revision
    if revision > current:
        details: Object = {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }
        message = f"Timeout: Too large resource version: {revision}, current: {current}"
        raise ApiError(504, "Timeout", message, details, {"Retry-After": "1"})
    return revision


def _write_token(revision: int, last: str) -> str:
    token = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": last + "\0"}, separators=(",", ":"))
    return base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def _read_token(text: str) -> tuple[int, str]:
    try:
        token = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return int(token["rv"]), str(token["start"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error


def list_options() -> Subject:
    """What an error in the options of a list or watch speaks of."""
    return Subject("meta.k8s.io", "listoptions", "ListOptions")


def list_objects(call: Call) -> Object:
    """A list object; pages show the collection as it was when the first page was read."""
    predicate, limit = selection(call), number(call.query, "limit")
    requested, match = requested_revision(call), call.query.get("resourceVersionMatch")
    if match and requested is None:
        text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
        raise invalid(list_options(), [forbidden_field("resourceVersionMatch", text)])
    store, start = call.cluster.store, ""
    revision = store.revision
    token = call.query.get("continue", "")
    if token:
        revision, start = _read_token(token)
        try:
            entries = iter(call.collection.scan_at(call.namespace, revision))
        except ApiError as error:
            raise gone(
                "The provided continue parameter is too old to display a consistent list result. You can "
                "start a new list without the continue parameter."
            ) from error
    elif match == "Exact" and requested:
        revision = requested
        entries = iter(call.collection.scan_at(call.namespace, revision))
    else:
        entries = call.collection.scan(call.namespace)
    chosen = [(k, o) for k, o in entries if k >= start and (predicate is None or predicate(o))]
    meta: Object = {"continue": ""} if call.resource.custom else {}
    meta["resourceVersion"] = str(revision)
    if limit and len(chosen) > limit:
        meta["continue"] = _write_token(revision, chosen[limit - 1][0])
        if predicate is None:
            meta["remainingItemCount"] = len(chosen) - limit
        chosen = chosen[:limit]
    resource = call.resource
    return {
        "kind": resource.list_kind or f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": meta,
        "items": [to_view(resource, o) for _, o in chosen],
    }
