"""Weights by tensor-parallel rank: `tp{rank}_sharded_checkpoint.safetensors`, cut out of the checkpoint.

Column-parallel tensors are cut along their first axis, row-parallel ones along their second; what does not
divide evenly is padded with zeros, as NxD pads vocabularies. The rest is repeated on every rank.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from local.checkpoints.tensorfile import Entry, read_entries, write_tensors
from local.shims.logs import ToolError

COLUMN = (
    "q_proj",
    "k_proj",
    "v_proj",
    "qkv_proj",
    "gate_proj",
    "up_proj",
    "gate_up_proj",
    "embed_tokens",
    "lm_head",
    "w1",
    "w3",
)
ROW = ("o_proj", "down_proj", "w2")
Array = np.ndarray[Any, np.dtype[Any]]
ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "I8": 1, "F64": 8}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a Hugging Face checkpoint, by its index when it has one; or the one file.

    Raises ToolError as transformers words a missing file.
    """
    if folder.is_file():
        return [folder]
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    for name in names:
        if not (folder / name).is_file():
            raise ToolError("FileNotFoundError", f"[Errno 2] No such file or directory: '{folder / name}'")
    return [folder / name for name in names]


def write_shards(source: Path, target: Path, degree: int) -> None:
    """Cut the checkpoint in `source` into `degree` files below `target`."""
    try:
        entries = [(file, entry) for file in weight_files(source) for entry in read_entries(file)]
    except ValueError as error:
        raise ToolError(
            "safetensors_rust.SafetensorError", f"Error while deserializing header: {error}"
        ) from error
    target.mkdir(parents=True, exist_ok=True)
    for rank in range(degree):
        path = target / f"tp{rank}_sharded_checkpoint.safetensors"
        write_tensors(path, _rank(entries, rank, degree))


def _rank(
    entries: list[tuple[Path, Entry]], rank: int, degree: int
) -> Iterator[tuple[str, str, tuple[int, ...], bytes]]:
    for file, entry in entries:
        item = ITEM_BYTES.get(entry.dtype, 2)
        values: Array = np.memmap(file, dtype=f"V{item}", mode="r", offset=entry.start, shape=entry.shape)
        axis = axis_of(entry.name)
        # A scale of the whole tensor is repeated; one a row is cut as its rows are.
        if (
            axis is not None
            and len(entry.shape) > axis
            and not (entry.name.endswith(".scale") and len(values) == 1)
        ):
            values = _part(values, axis, rank, degree)
        name = entry.name.removeprefix("model.")
        yield name, entry.dtype, values.shape, np.ascontiguousarray(values).tobytes()


def axis_of(name: str) -> int | None:
    """The axis that a tensor is cut along; None for one that every rank has whole."""
    module = name.removesuffix(".weight").removesuffix(".bias").removesuffix(".scale").rsplit(".", 1)[-1]
    if ".experts." in name and not name.split(".experts.")[1][0].isdigit():
        return 2 if module in COLUMN else 1  # all experts of a layer in one tensor, transposed
    if module in COLUMN:
        return 0
    return 1 if module in ROW and name.endswith(".weight") else None


def _part(values: Array, axis: int, rank: int, degree: int) -> Array:
    """The `rank`-th of `degree` equal parts along `axis`, padded at the end."""
    size = -(-values.shape[axis] // degree)
    part = values.take(range(rank * size, min((rank + 1) * size, values.shape[axis])), axis=axis)
    if part.shape[axis] == size:
        return part
    shape = list(part.shape)
    shape[axis] = size
    padded = np.zeros(shape, dtype=values.dtype)
    padded[tuple(slice(0, length) for length in part.shape)] = part
    return padded


def join_shards(shards: Path, target: Path, config: Path) -> None:
    """The reverse of `write_shards`: one safetensors file with whole tensors, padding cut off by `config`."""
    sizes = json.loads(config.read_text())
    files = [
        shards / f"tp{rank}_sharded_checkpoint.safetensors" for rank in range(len(list(shards.iterdir())))
    ]
    ranks = [{entry.name: entry for entry in read_entries(file)} for file in files]

    def joined() -> Iterator[tuple[str, str, tuple[int, ...], bytes]]:
        for name, first in ranks[0].items():
            item = ITEM_BYTES.get(first.dtype, 2)
            parts: list[Array] = [
                np.memmap(file, f"V{item}", "r", entries[name].start, entries[name].shape)
                for file, entries in zip(files, ranks, strict=True)
            ]
            axis = axis_of(name)
            whole = parts[0] if axis is None else np.concatenate(parts, axis=axis)
            if name.startswith(("embed_tokens", "lm_head")):
                whole = whole[: sizes["vocab_size"]]
            full = name if name.startswith("lm_head") else f"model.{name}"
            yield full, first.dtype, whole.shape, np.ascontiguousarray(whole).tobytes()

    write_tensors(target, joined())
