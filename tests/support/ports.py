"""Ports for servers that are told which."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port of this host that is given to nobody else meanwhile: not by chance, nor for a connection.

    It is bound, but nobody listens: dialling it is refused until a server that sets SO_REUSEADDR, as those of
    asyncio and Go do, listens there itself.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, 0))
        yield int(holder.getsockname()[1])
