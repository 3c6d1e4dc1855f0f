"""A whole object's checksum from its parts'."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from trainyard.store.checksums import CRC32, Checksum, best, known


def slow_crc64(content: bytes | bytearray | memoryview) -> int:
    """CRC-64/NVME, bit by bit."""
    value = (1 << 64) - 1
    for byte in bytes(content):
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x9A6C9329AC4BC9B5 if value & 1 else 0)
    return value ^ (1 << 64) - 1


CRC64NVME = Checksum("CRC64NVME", 64, 0x9A6C9329AC4BC9B5, slow_crc64)


def test_the_polynomial_is_that_of_s3() -> None:
    # The check value of the CRC catalogue.
    assert slow_crc64(b"123456789") == 0xAE8B14860A799888


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_parts_join_to_the_whole(parts: list[bytes]) -> None:
    for checksum in (CRC32, CRC64NVME):
        joined = checksum.join((checksum.of(part), len(part)) for part in parts)
        assert joined == checksum.of(b"".join(parts))


def test_large_parts_join_as_well() -> None:
    parts = [bytes([number]) * ((5 << 20) + number) for number in range(3)]
    assert CRC32.join((zlib.crc32(part), len(part)) for part in parts) == zlib.crc32(b"".join(parts))


def test_values_are_written_as_s3_writes_them() -> None:
    assert CRC32.text(zlib.crc32(b"hello world")) == "DUoRhQ=="
    assert CRC32.field == "ChecksumCRC32"


def test_without_awscrt_there_is_crc32() -> None:
    assert known()["CRC32"] is CRC32
    assert best().name in ("CRC32", "CRC64NVME")
