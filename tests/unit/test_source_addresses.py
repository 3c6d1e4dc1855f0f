from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.errors import Refused
from trainyard.sources import parse


@pytest.mark.parametrize(
    ("text", "kind", "place", "revision"),
    [
        ("hf://org/name", "hf", "org/name", None),
        ("hf://org/name@main", "hf", "org/name", "main"),
        ("hf://org/name@feature/x", "hf", "org/name", "feature/x"),
        ("s3://models/llama/8b/", "s3", "models/llama/8b", None),
        ("file:///mnt/models/tiny/", "file", "/mnt/models/tiny", None),
    ],
)
def test_an_address_is_taken_apart(text: str, kind: str, place: str, revision: str | None) -> None:
    found = parse(text)
    assert (found.kind, found.place, found.revision) == (kind, place, revision)


@pytest.mark.parametrize(
    "text",
    [
        "org/name", "http://host/x", "hf://name", "hf://org/name@", "hf://org/name@a..b", "hf://../name",
        "s3://bucket", "s3://bucket/", "s3://B/x", "s3://bucket/a/../b", "s3://a..b/x",
        "file://relative", "file:///mnt/../etc", "file:///a\nb", "", None, 3,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_a_remedy(text: object) -> None:
    with pytest.raises(Refused, match="source"):
        parse(text)


@given(st.text(max_size=60))
def test_whatever_is_written_is_an_address_or_refused(text: str) -> None:
    for prefix in ("", "hf://", "s3://", "file://"):
        try:
            found = parse(prefix + text)
        except Refused:
            continue
        assert ".." not in found.place.split("/")
