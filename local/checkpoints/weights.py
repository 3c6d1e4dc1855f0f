"""BF16 tensors from a seed, written as safetensors shards with the index that transformers expects."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from local.checkpoints.shape import Shape
from local.checkpoints.tensorfile import write_tensors

Named = tuple[str, tuple[int, ...]]


def bf16_bytes(values: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    """Float32 `values` as little-endian BF16, rounded to nearest even (NumPy has no such type)."""
    bits = values.astype("<f4").view("<u4")
    return bytes(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes())


def tensor_bytes(name: str, shape: tuple[int, ...], seed: int) -> bytes:
    """The BF16 content of one tensor: ones for norms, zeros for biases, else small values of (seed, name)."""
    if name.endswith(".bias"):
        return bytes(2 * math.prod(shape))
    if len(shape) == 1:
        return bf16_bytes(np.ones(shape, dtype=np.float32))
    # One generator a tensor: the values do not depend on the order or on the number of shards.
    drawn = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    spread = 0.02 * math.sqrt(12.0)
    return bf16_bytes((drawn.random(shape, dtype=np.float32) - np.float32(0.5)) * np.float32(spread))


def split(tensors: Sequence[Named], shards: int) -> list[list[Named]]:
    """`tensors` in order, cut into at most `shards` groups of about the same number of bytes."""
    total = sum(math.prod(shape) for _, shape in tensors)
    groups: list[list[Named]] = [[] for _ in range(shards)]
    done = 0
    for name, shape in tensors:
        groups[min(done * shards // total, shards - 1)].append((name, shape))
        done += math.prod(shape)
    return [group for group in groups if group]


def write_weights(folder: Path, shape: Shape, seed: int) -> None:
    """Write `model-0000x-of-0000y.safetensors` and `model.safetensors.index.json` below `folder`."""
    groups = split(list(shape.tensors()), shape.shards)
    weight_map: dict[str, str] = {}
    total = 0
    for number, group in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        write_tensors(
            folder / file, ((name, "BF16", size, tensor_bytes(name, size, seed)) for name, size in group)
        )
        for name, size in group:
            weight_map[name] = file
            total += 2 * math.prod(size)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
