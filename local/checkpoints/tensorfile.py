"""The safetensors file format, as far as BF16 needs it: an 8-byte length, a JSON header, the tensors.

The library's own writer takes BF16 from torch or `ml_dtypes` only, and its byte-level entry changed between
releases; the format did not. Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ALIGNMENT = 8


@dataclass(frozen=True)
class Entry:
    """One tensor in a file: its type ("BF16"), shape, and the byte range [start, stop) in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def write_tensors(path: Path, tensors: Iterable[tuple[str, str, tuple[int, ...], bytes]]) -> None:
    """Write (name, dtype, shape, content) tuples to `path`, in the order given."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    contents: list[bytes] = []
    offset = 0
    for name, dtype, shape, content in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(content)]}
        contents.append(content)
        offset += len(content)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # Padding with spaces keeps the first tensor aligned, as the library's writer does.
    encoded += b" " * (-len(encoded) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for content in contents:
            file.write(content)


def read_entries(path: Path) -> list[Entry]:
    """The tensors of a safetensors file; raises ValueError when it is cut short or not one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise ValueError(f"{path}: incomplete metadata, file not fully covered: header of {length} bytes")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    entries = [
        Entry(
            name,
            entry["dtype"],
            tuple(entry["shape"]),
            8 + length + entry["data_offsets"][0],
            8 + length + entry["data_offsets"][1],
        )
        for name, entry in header.items()
    ]
    last = max((entry.stop for entry in entries), default=8 + length)
    if last != size:
        raise ValueError(f"{path}: incomplete metadata, file not fully covered: {last} of {size} bytes")
    return entries
