"""Finding container processes by the marker in their environment, for a kubelet that died without cleaning
up.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

MARKER = "LOCAL_STACK_ID"
ROOT = "LOCAL_KUBELET_ROOT"


def stack_id(root: Path) -> str:
    """The marker's value: the stack's own, or one made from the kubelet's folder when it runs alone."""
    return os.environ.get(MARKER) or f"kubelet:{root}"


def find(values: dict[str, str]) -> Iterator[int]:
    """Process ids (ours excluded) whose environment has all these values; Linux only."""
    wanted = {f"{key}={value}".encode() for key, value in values.items()}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if pid == os.getpid():
            continue
        try:
            environment = set((entry / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if wanted <= environment:
            yield pid


def kill_containers(root: Path) -> list[int]:
    """Kill every container process of a kubelet with this root; returns their ids."""
    killed = []
    for _ in range(3):
        # Again until none is found: a process may fork between the scan and the signal.
        found = list(find({MARKER: stack_id(root), ROOT: str(root)}))
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            except ProcessLookupError:
                pass
        if not found:
            break
    return killed
