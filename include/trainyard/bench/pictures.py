"""PNG pictures of any size, each another one, by the standard library.

All pictures of a size share their pixels but for the last rows, so that a new one costs little: the load
generator has other things to do. A server that knows pictures by a digest of their pixels knows none twice.
"""

from __future__ import annotations

import base64
import random
import struct
import zlib

HEAD = b"\x89PNG\r\n\x1a\n"
COLOURS = 3  # bytes a pixel, 8 bits each of red, green, blue
OWN_BYTES = 48  # of each picture


class Painter:
    """Pictures of one size."""

    def __init__(self, width: int, height: int) -> None:
        self._width = width
        row = bytearray(b"\0")  # no filter
        for x in range(width):
            row += bytes((x * 255 // width, 128, 255 - x * 255 // width))
        self._row = bytes(row)
        own_rows = 1
        self._begun = zlib.compressobj(1)
        self._first = self._begun.compress(self._row * (height - own_rows))
        # What is open of the stream would be compressed again with every picture.
        self._first += self._begun.flush(zlib.Z_SYNC_FLUSH)
        size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        self._head = HEAD + _chunk(b"IHDR", size)

    def png(self, seed: object) -> bytes:
        own = random.Random(f"picture/{seed}").randbytes(min(OWN_BYTES, COLOURS * self._width))
        rest = self._begun.copy()
        data = self._first + rest.compress(b"\0" + own + self._row[1 + len(own) :]) + rest.flush()
        return self._head + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")

    def data_url(self, seed: object) -> str:
        """As the OpenAI API takes it for an `image_url`."""
        return f"data:image/png;base64,{base64.b64encode(self.png(seed)).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
