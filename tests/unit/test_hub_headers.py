from __future__ import annotations

import json
import struct

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from trainyard.errors import CorruptArtifact
from trainyard.hub_headers import HEADER_CAP, parse_header, parse_length

NUMBERS = st.integers(-1, 70) | st.integers(2**62, 2**70) | st.none() | st.text(max_size=2)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F4", "X"]),
        "shape": st.lists(NUMBERS, max_size=3),
        "data_offsets": st.lists(NUMBERS, max_size=3),
    }
)


def read(content: bytes) -> object:
    length = parse_length(content, len(content), "m")
    return parse_header(content[8 : 8 + length], len(content), "m")


def made(header: object, data: bytes = b"") -> bytes:
    body = json.dumps(header).encode()
    return struct.pack("<Q", len(body)) + body + data


def test_a_file_of_the_real_library_is_understood() -> None:
    content = save(
        {"a": numpy.zeros((2, 3), numpy.float32), "b": numpy.zeros(4, numpy.int8)}, {"format": "pt"}
    )
    length = parse_length(content, len(content), "m")
    header = parse_header(content[8 : 8 + length], len(content), "m")
    assert header.data_bytes == 28
    assert header.parameters == 10
    assert header.tensors["a"].shape == (2, 3)


@pytest.mark.parametrize(
    "content", [b"", b"1234567", struct.pack("<Q", 1 << 62), struct.pack("<Q", 9) + b"{}"]
)
def test_a_length_beyond_file_or_cap_is_refused_before_it_is_read(content: bytes) -> None:
    with pytest.raises(CorruptArtifact):
        parse_length(content, len(content), "m")
    with pytest.raises(CorruptArtifact, match="limit"):
        parse_length(struct.pack("<Q", HEADER_CAP + 1), 1 << 60, "m")


F32 = {"dtype": "F32", "shape": [1]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {**F32, "data_offsets": [0, 4]}}, 5),
        ({"a": {**F32, "data_offsets": [0, 4]}}, 3),
        ({"a": {**F32, "data_offsets": [1, 5]}}, 5),
        ({"a": {**F32, "data_offsets": [0, 4]}, "b": {**F32, "data_offsets": [2, 6]}}, 6),
        ({"a": {**F32, "data_offsets": [0, 8]}}, 8),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, 4),
        ({"a": {"dtype": "P64", "shape": [1], "data_offsets": [0, 8]}}, 8),
        ({"a": {**F32, "data_offsets": [0]}}, 4),
        ({"a": 7}, 0),
        ([], 0),
    ],
)
def test_gaps_overlaps_and_lies_are_refused(header: object, data: int) -> None:
    with pytest.raises(CorruptArtifact, match="m"):
        read(made(header, b"\0" * data))


@given(st.binary(max_size=200) | st.dictionaries(st.text(max_size=2), ENTRY, max_size=3).map(made))
def test_any_bytes_are_read_or_refused_but_never_crash(content: bytes) -> None:
    try:
        read(content)
    except CorruptArtifact:
        pass
