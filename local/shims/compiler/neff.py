"""NEFFs: what the compiler makes of a graph, opaque but for a header that the runtime checks."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from local.shims.logs import ToolError
from local.shims.silicon import TARGETS, Silicon

MAGIC = b"NEFF\x02\0\0\0"
HEADER_BYTES = 1024


def neff(hlo: bytes, flags: list[str], version: str, target: str) -> bytes:
    """A NEFF of 64 KiB for this graph; the same for the same inputs."""
    seed = hashlib.sha256(hlo + "\0".join([*flags, version]).encode()).digest()
    graph = hashlib.sha256(hlo).hexdigest()
    header = json.dumps({"compiler": version, "graph": graph, "target": TARGETS.get(target, target)}).encode()
    return MAGIC + header.ljust(HEADER_BYTES, b"\0") + hashlib.shake_256(seed).digest(63 * 1024)


def header(content: bytes) -> dict[str, Any]:
    """compiler, graph and target of a NEFF; raises ToolError as the runtime refuses what is none."""
    try:
        if not content.startswith(MAGIC):
            raise ValueError("bad magic")
        found: dict[str, Any] = json.loads(content[len(MAGIC) : len(MAGIC) + HEADER_BYTES].rstrip(b"\0"))
    except ValueError:
        raise ToolError("RuntimeError", "nrt_load: status=2 (NRT_INVALID), the file is no NEFF") from None
    return found


def check_runs(content: bytes, devices: Silicon) -> None:
    """Raise ToolError for a NEFF of another chip generation than these devices are."""
    built = header(content)["target"]
    if built != devices.target:
        raise ToolError(
            "RuntimeError",
            f"nrt_load: status=2 (NRT_INVALID), the NEFF was compiled for {built}, the device is "
            f"{devices.target}",
        )


def check_model_runs(path: Path, devices: Silicon) -> None:
    """`check_runs` for all graphs of a `model.pt` that was read before."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".neff"):
                check_runs(archive.read(name), devices)
