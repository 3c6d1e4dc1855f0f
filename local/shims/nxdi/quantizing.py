"""Symmetric quantization of a BF16 checkpoint to INT8 or FP8 E4M3, as `save_quantized_state_dict` does it.

Every linear layer of the decoder gets an integer or FP8 weight and a float32 `scale`: one a row (per channel)
or one in all (per tensor). Embeddings, norms and the language model's head stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from local.checkpoints.tensorfile import Entry, read_entries, write_tensors
from local.shims import logs
from local.shims.compiler.shards import weight_files
from local.shims.logs import ToolError

Floats = np.ndarray[Any, np.dtype[np.float32]]
Named = tuple[str, str, tuple[int, ...], bytes]
LARGEST = {"int8": 127.0, "f8e4m3": 448.0}
STORED = {"int8": "I8", "f8e4m3": "F8_E4M3"}


def write_quantized(source: Path, target: Path, kind: str, dtype: str) -> None:
    """Quantize `source` to `target`: into the folder when that exists, else as one file of this name."""
    entries = [(file, entry) for file in weight_files(source) for entry in read_entries(file)]
    if target.is_dir():
        logs.neuron(f"Saving quantized state dict as safetensors to: {target}")
        target = target / "model.safetensors"
    else:
        logs.neuron(f"Saving quantized state dict as torch pt file to: {target}")
    write_tensors(target, _quantized(entries, per_channel=kind == "per_channel_symmetric", dtype=dtype))


def _quantized(entries: list[tuple[Path, Entry]], *, per_channel: bool, dtype: str) -> Iterator[Named]:
    for file, entry in entries:
        name = entry.name.removeprefix("model.")
        with file.open("rb") as opened:
            opened.seek(entry.start)
            content = opened.read(entry.stop - entry.start)
        if len(entry.shape) != 2 or not name.startswith("layers."):
            yield name, entry.dtype, entry.shape, content
            continue
        if entry.dtype != "BF16":
            raise ToolError("ValueError", f"{entry.name} is {entry.dtype}: only BF16 weights are quantized")
        values = bf16_floats(content).reshape(entry.shape)
        weights, scale = quantize(values, dtype, per_channel=per_channel)
        yield name, STORED[dtype], entry.shape, weights
        yield name.removesuffix("weight") + "scale", "F32", scale.shape, scale.astype("<f4").tobytes()


def bf16_floats(content: bytes) -> Floats:
    """BF16 as float32: the upper half of the same number."""
    return (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")


def quantize(values: Floats, dtype: str, *, per_channel: bool) -> tuple[bytes, Floats]:
    """Weights as stored, and the scales that give the values back: values = weights * scale."""
    largest = np.abs(values).max(axis=1, keepdims=True) if per_channel else np.abs(values).max(keepdims=True)
    scale: Floats = np.maximum(largest / LARGEST[dtype], 1e-12).astype(np.float32)
    scaled = values / scale
    if dtype == "int8":
        return np.rint(scaled).astype(np.int8).tobytes(), scale
    magnitudes = e4m3_values()
    places = np.searchsorted((magnitudes[1:] + magnitudes[:-1]) / 2, np.abs(scaled))
    return (places.astype(np.uint8) | np.where(scaled < 0, 0x80, 0).astype(np.uint8)).tobytes(), scale


def e4m3_values() -> Floats:
    """What the codes 0 to 126 of FP8 E4M3 stand for, ascending; 127 is no number."""
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, (codes & 7) / 8
    normal = (1 + mantissa) * 2.0 ** (exponent - 7)
    return np.where(exponent == 0, mantissa * 2.0**-6, normal).astype(np.float32)
