"""Checksums of whole objects, joined from their parts': S3 compares them before one becomes visible.

CRC64NVME, S3's own choice, where `awscrt` is installed (no other package computes it at this speed); CRC32
from zlib otherwise. Both are linear, so the object's follows from its parts' in microseconds.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Checksum:
    """name: as S3 calls it; bits: 32 or 64; polynomial: bit-reflected; of: the value of a piece."""

    name: str
    bits: int
    polynomial: int
    of: Callable[[Buffer], int] = field(repr=False)

    @property
    def field(self) -> str:
        """Parameter and reply field of S3's calls."""
        return f"Checksum{self.name}"

    def text(self, value: int) -> str:
        """As S3 writes it: base64 of the big-endian bytes."""
        return base64.b64encode(value.to_bytes(self.bits // 8, "big")).decode()

    def join(self, parts: Iterable[tuple[int, int]]) -> int:
        """The value of all parts, given as (value, bytes), one after the other."""
        whole = 0
        for value, length in parts:
            whole = self._times(self._power(8 * length), whole) ^ value
        return whole

    def _times(self, left: int, right: int) -> int:
        """Product of two polynomials over GF(2), modulo ours; the highest bit is the lowest power."""
        bit, product = 1 << (self.bits - 1), 0
        while bit:
            if left & bit:
                product ^= right
            bit >>= 1
            right = right >> 1 ^ (self.polynomial if right & 1 else 0)
        return product

    def _power(self, exponent: int) -> int:
        return _power(self, exponent)


@cache
def _power(checksum: Checksum, exponent: int) -> int:
    """x to the power of `exponent`. Parts are of one size but the last: it is asked for two values."""
    result, square = 1 << (checksum.bits - 1), 1 << (checksum.bits - 2)
    while exponent:
        if exponent & 1:
            result = checksum._times(square, result)
        square = checksum._times(square, square)
        exponent >>= 1
    return result


CRC32 = Checksum("CRC32", 32, 0xEDB88320, zlib.crc32)


def known() -> dict[str, Checksum]:
    """By name: those that can be computed here."""
    try:
        checksums = import_module("awscrt.checksums")
    except ImportError:
        return {CRC32.name: CRC32}
    crc64 = Checksum("CRC64NVME", 64, 0x9A6C9329AC4BC9B5, checksums.crc64nvme)
    return {crc64.name: crc64, CRC32.name: CRC32}


def best() -> Checksum:
    """CRC64NVME if it can be computed here."""
    return next(iter(known().values()))
