"""Safetensors of any size, quickly made, for tests of transfers."""

from __future__ import annotations

import json
import os
from pathlib import Path

PART = 5 << 20  # the smallest that S3 takes


def write_shard(path: Path, size: int) -> None:
    """A valid file of `size` bytes: one tensor of random ones."""
    data = size - 8 - 128
    header = (
        json.dumps({"w": {"dtype": "U8", "shape": [data], "data_offsets": [0, data]}}).encode().ljust(128)
    )
    path.write_bytes(len(header).to_bytes(8, "little") + header + os.urandom(data))


def write_model(folder: Path, *sizes: int) -> Path:
    """A repository with a shard of each size and a config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes, 1):
        write_shard(folder / f"model-{number:05}-of-{len(sizes):05}.safetensors", size)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder
