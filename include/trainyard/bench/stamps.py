"""When bytes arrived, by the kernel's own stamp: it stands, however late the reader gets to them.

Linux stamps what it receives, TCP included, and hands the stamp over with the bytes (SO_TIMESTAMPNS, `man 7
socket`). Of bytes that came in several packets and are read at once it is the last packet's. The stamps are
of CLOCK_REALTIME, which runs at the pace of CLOCK_MONOTONIC and can be set; `step` tells whether it was.
"""

from __future__ import annotations

import functools
import socket
import struct
import sys
import time
from collections.abc import Sequence

SO_TIMESTAMPNS = 35  # on Linux; the module `socket` does not have it
_TIME = struct.Struct("@ll")  # struct timespec
SPACE = socket.CMSG_SPACE(_TIME.size) if hasattr(socket, "CMSG_SPACE") else 0
TRIES, TRY_SECONDS = 50, 0.001
NANO = 10**9

Ancillary = list[tuple[int, int, bytes]]


class Stamps:
    """kernel: this machine's kernel stamps what arrives. One for a process: see `stamps`."""

    def __init__(self) -> None:
        self._offset = offset()
        self._seconds, self._nanos = divmod(self._offset, NANO)
        self._unpack = _TIME.unpack
        self._keeper: socket.socket | None = None
        self.kernel = sys.platform == "linux" and self._try()

    def ask(self, connection: socket.socket) -> bool:
        """Have this connection's bytes stamped from now on; false where that cannot be."""
        if self.kernel:
            connection.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        return self.kernel

    def arrival(self, ancillary: Ancillary) -> float:
        """Of time.monotonic. ancillary: what `recvmsg` returned with the bytes; without a stamp it is now."""
        if not ancillary:
            return time.monotonic()
        seconds, nanos = self._unpack(ancillary[0][2])
        return float(seconds - self._seconds + (nanos - self._nanos) * 1e-9)

    def arrivals(self, times: Sequence[bytes]) -> list[float]:
        """The same of many at once. times: the data of each one's first ancillary message."""
        numbers = struct.unpack(f"@{2 * len(times)}l", b"".join(times))
        own_seconds, own_nanos = self._seconds, self._nanos
        return [
            seconds - own_seconds + (nanos - own_nanos) * 1e-9
            for seconds, nanos in zip(numbers[::2], numbers[1::2], strict=True)
        ]

    def step(self) -> float:
        """Seconds by which somebody has set the wall clock meanwhile: so much are stamps off since."""
        return abs(offset() - self._offset) / NANO

    def _try(self) -> bool:
        """The kernel begins to stamp when a first socket wants it, and some pretend to."""
        try:
            with socket.create_server(("127.0.0.1", 0)) as server:
                writer = socket.create_connection(server.getsockname())
                reader, _ = server.accept()
            with writer, reader:
                reader.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                for _ in range(TRIES):
                    writer.sendall(b".")
                    if reader.recvmsg(1, SPACE)[1]:
                        # Kept, so that the kernel does not begin and end with every connection.
                        self._keeper = reader.dup()
                        return True
                    time.sleep(TRY_SECONDS)
        except OSError:
            pass
        return False


@functools.cache
def stamps() -> Stamps:
    return Stamps()


def offset() -> int:
    """Nanoseconds that CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, to less than a microsecond as a rule."""
    best, width = 0, sys.maxsize
    for _ in range(5):  # whoever is interrupted between two of these reads a wide one
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        if after - before < width:
            best, width = real - (before + after) // 2, after - before
    return best
