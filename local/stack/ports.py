"""Free loopback ports, the same ones run after run where nobody else took them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

HOST = "127.0.0.1"
GRPC_OFFSET = 10_000
"""SeaweedFS's parts dial each other at HTTP port + 10000 for gRPC, whatever else is said."""
FIRST, LAST = 20_000, 30_000
"""Below the kernel's ephemeral range (32768 and up): no outgoing connection takes a port meanwhile."""
LAST_PAIRED = 32_767 - GRPC_OFFSET
"""So that port + 10000 is below it as well."""


class NoFreePort(Exception):
    """All of the range is taken: something on this machine holds thousands of listening sockets."""


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # Servers set it too: a connection in TIME_WAIT from the last run must not cost us the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose(
    names: Iterable[str], kept: Mapping[str, int], *, paired: frozenset[str], seed: int
) -> dict[str, int]:
    """A free port for each name; `kept` ones stay when they are still free.

    `paired` names also need port + 10000. `seed` spreads stacks with different homes over the range.
    """
    names = list(names)
    chosen: dict[str, int] = {}

    def usable(name: str, port: int) -> bool:
        if port in chosen.values() or (name in paired and port > LAST_PAIRED):
            return False
        return is_free(port) and (name not in paired or is_free(port + GRPC_OFFSET))

    for name in names:
        if name in kept and usable(name, kept[name]):
            chosen[name] = kept[name]
    candidate = FIRST + seed % (LAST - FIRST)
    for name in names:
        if name in chosen:
            continue
        for _ in range(LAST - FIRST):
            candidate = FIRST + (candidate + 1 - FIRST) % (LAST - FIRST)
            if usable(name, candidate):
                chosen[name] = candidate
                break
        else:
            raise NoFreePort(
                f"no free port for {name} on {HOST} from {FIRST} to {LAST}: stop what holds them"
            )
    return chosen


def read(file: Path) -> dict[str, int]:
    """Ports of the run before; empty when there was none or the file is not ours."""
    try:
        known = json.loads(file.read_text())
        return {str(name): int(port) for name, port in known.items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}
