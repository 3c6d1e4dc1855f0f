"""JSON documents in S3: one canonical form out, checked types in. No pydantic: this runs in AWS's images."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from trainyard.errors import CorruptArtifact, PermanentError

SCHEMA = 1
# A manifest of 100,000 files in packs is some 30 MB with 800,000 values. What claims more is not read: Python
# needs up to thirty bytes for one of JSON.
MAX_BYTES = 40 << 20
MAX_VALUES = 1_000_000
T = TypeVar("T")


def encode(document: Mapping[str, Any]) -> bytes:
    """Canonical bytes: sorted keys, no NaN (JSON has none), a newline at the end."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode() + b"\n"


def decode(body: bytes, where: str, sha256: str | None = None) -> dict[str, Any]:
    """Parse a document and check its schema version.

    sha256: of the bytes, where the caller was told by somebody whom it trusts (docs/signing.md).

    Raises CorruptArtifact if it is no JSON object or not the pinned one, PermanentError if it is of a schema
    unknown here.
    """
    if sha256 is not None and (found := hashlib.sha256(body).hexdigest()) != sha256:
        raise CorruptArtifact(
            f"{where} has SHA-256 {found}; the one that was checked has {sha256}. It was changed since. "
            "Release again, and find out who writes there."
        )
    if len(body) > MAX_BYTES or values_in(body) > MAX_VALUES:
        raise CorruptArtifact(
            f"{where} has {len(body)} bytes and {values_in(body)} values; a document has {MAX_BYTES} and "
            f"{MAX_VALUES} at most. Restore it or delete it."
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"{where} is no JSON document ({error}). Restore it or delete it.") from error
    if not isinstance(document, dict):
        raise CorruptArtifact(
            f"{where} is a JSON {type(document).__name__}, not an object. Restore it or delete it."
        )
    check_schema(document, where)
    return document


def values_in(body: bytes) -> int:
    """Not less than the values that parsing would make: what memory it takes, told without parsing."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") + 1


def check_schema(document: Mapping[str, Any], where: str, newest: int = SCHEMA) -> None:
    """Older schemas are read: fields that came since have defaults. A newer one may mean something else by a
    field that we know, so it is refused. Raises PermanentError."""
    schema = document.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise PermanentError(
            f"{where} has schema {schema!r}, which no Trainyard writes. Restore it or delete it."
        )
    if schema > newest:
        raise PermanentError(
            f"{where} has schema {schema}, written by a newer Trainyard; this one reads schemas up to "
            f"{newest}. Update this Trainyard: it changes nothing that it does not understand."
        )


def take(document: Mapping[str, Any], name: str, kind: type[T], where: str) -> T:
    """The value of field `name`, which must be of type `kind`. Raises CorruptArtifact."""
    value = document.get(name)
    # bool is an int in Python, not in JSON; and JSON writes 3.0 as 3.
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)  # type: ignore[return-value]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise CorruptArtifact(f"{where}: field {name!r} is {value!r}, not {kind.__name__}.")
    return value


def take_optional(document: Mapping[str, Any], name: str, kind: type[T], where: str) -> T | None:
    return None if document.get(name) is None else take(document, name, kind, where)


def timestamp(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
