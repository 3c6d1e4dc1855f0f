"""Just enough protobuf to read the access reviews that kubectl sends in no other form.

A table gives each message its fields by number. What a table does not know is passed over, as Go does it.
The numbers are those of k8s.io/api/authorization/v1 and authentication/v1, generated.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from local.apiserver.errors import Object, bad_request

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


@dataclass(frozen=True)
class Field:
    """`inner` is the table of a message; `many` collects strings in a list."""

    name: str
    inner: dict[int, Field] | None = None
    many: bool = False
    lists: bool = False
    """A map of strings to lists of strings."""


def _strings(**numbers: int) -> dict[int, Field]:
    return {number: Field(name) for name, number in numbers.items()}


_RESOURCE = _strings(namespace=1, verb=2, group=3, version=4, resource=5, subresource=6, name=7)
_ATTRIBUTES = {
    1: Field("resourceAttributes", _RESOURCE),
    2: Field("nonResourceAttributes", _strings(path=1, verb=2)),
}
_SUBJECT = {
    **_ATTRIBUTES,
    3: Field("user"),
    4: Field("groups", many=True),
    5: Field("extra", lists=True),
    6: Field("uid"),
}
MESSAGES: dict[str, dict[int, Field]] = {
    "SelfSubjectAccessReview": {2: Field("spec", _ATTRIBUTES)},
    "SubjectAccessReview": {2: Field("spec", _SUBJECT)},
    "LocalSubjectAccessReview": {2: Field("spec", _SUBJECT)},
    "SelfSubjectRulesReview": {2: Field("spec", _strings(namespace=1))},
    "SelfSubjectReview": {},
}
"""By kind; metadata (field 1) is empty in a review."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each length-delimited field; numbers of other wire types are passed over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise IndexError
            yield tag >> 3, data[at : at + size]
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise IndexError


def _read(data: bytes, table: dict[int, Field]) -> Object:
    found: Object = {}
    for number, content in _fields(data):
        known = table.get(number)
        if known is None:
            continue
        if known.inner is not None:
            found[known.name] = _read(content, known.inner)
        elif known.lists:
            entry = dict(_fields(content))
            values = [value.decode() for _, value in _fields(entry.get(2, b""))]
            found.setdefault(known.name, {})[entry.get(1, b"").decode()] = values
        elif known.many:
            found.setdefault(known.name, []).append(content.decode())
        elif content:
            found[known.name] = content.decode()
    return found


def read_review(raw: bytes, kind: str) -> Any:
    """A review of `kind` as the JSON form has it; ApiError 400 for anything else."""
    try:
        if not raw.startswith(_MAGIC):
            raise IndexError
        envelope = dict(_fields(raw[len(_MAGIC) :]))
        said = {n: v.decode() for n, v in _fields(envelope.get(1, b""))}
        content = _read(envelope.get(2, b""), MESSAGES[said.get(2) or kind])
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): no such protobuf message"
        ) from error
    return {"apiVersion": said.get(1, ""), "kind": said.get(2, ""), **content}
