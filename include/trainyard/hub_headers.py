"""The header of a safetensors file: 8 bytes little-endian length, then JSON, then tensors without gaps.

Source: the format description of safetensors. Limits are checked before anything is parsed, and are narrower
than those of its Rust reader (100 MB): Python needs many times the memory of the JSON that it reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import Any, TypeGuard

from trainyard.errors import CorruptArtifact
from trainyard.store.documents import values_in

# 140 bytes a tensor are usual, and a shard has some hundreds to thousands of them.
HEADER_CAP = 25_000_000
MAX_VALUES = 1_000_000
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """dtype by safetensors' name; shape; size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Header:
    """tensors by name; data_bytes: bytes of all tensors."""

    tensors: dict[str, Tensor]
    data_bytes: int

    @property
    def parameters(self) -> int:
        return sum(prod(tensor.shape) for tensor in self.tensors.values())


def parse_length(start: bytes, file_size: int, where: str) -> int:
    """Bytes of the JSON header, from the file's first 8. Raises CorruptArtifact."""
    if file_size < 8 or len(start) < 8:
        raise CorruptArtifact(f"{where} has {file_size} bytes: too short for a safetensors file.")
    length = int.from_bytes(start[:8], "little")
    if length > HEADER_CAP or length > file_size - 8:
        raise CorruptArtifact(
            f"{where}: the header would have {length} bytes; the file has {file_size}, the limit is "
            f"{HEADER_CAP}."
        )
    return length


def parse_header(body: bytes, file_size: int, where: str) -> Header:
    """Check and read the JSON header. Raises CorruptArtifact for whatever is wrong with it."""
    if values_in(body) > MAX_VALUES:
        raise CorruptArtifact(
            f"{where}: the safetensors header has {values_in(body)} values; the limit is {MAX_VALUES}."
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"{where}: the safetensors header is no JSON ({error}).") from error
    if not isinstance(document, dict):
        raise CorruptArtifact(f"{where}: the safetensors header is no JSON object.")
    data_bytes = file_size - 8 - len(body)
    spans: list[tuple[int, int, str]] = []
    tensors: dict[str, Tensor] = {}
    for name, entry in document.items():
        if name == "__metadata__":
            continue
        tensor, begin, end = _tensor(name, entry, where)
        tensors[name] = tensor
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise CorruptArtifact(
                f"{where}: tensor {name!r} begins at {begin}, not at {position}: a gap or an overlap."
            )
        position = end
    if position != data_bytes:
        raise CorruptArtifact(
            f"{where}: the tensors have {position} bytes, the file has {data_bytes} for them."
        )
    return Header(tensors, data_bytes)


def _tensor(name: str, entry: Any, where: str) -> tuple[Tensor, int, int]:
    if not isinstance(entry, dict):
        raise CorruptArtifact(f"{where}: tensor {name!r} is {type(entry).__name__}, not an object.")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise CorruptArtifact(
            f"{where}: tensor {name!r} has dtype {dtype!r}, which safetensors does not know."
        )
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise CorruptArtifact(f"{where}: tensor {name!r} has shape {shape!r} and offsets {offsets!r}.")
    begin, end = offsets
    if prod(shape) * _BITS[dtype] != (end - begin) * 8:
        raise CorruptArtifact(
            f"{where}: tensor {name!r} of {dtype} {shape} does not have {end - begin} bytes."
        )
    return Tensor(dtype, tuple(shape), end - begin), begin, end


def _naturals(value: Any) -> TypeGuard[list[int]]:
    # 2**63 and 16 dimensions: products stay cheap whatever a file claims.
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(
            isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 63 for item in value
        )
    )
