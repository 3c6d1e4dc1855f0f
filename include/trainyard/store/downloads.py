"""Blobs out of S3: several ranges at once, written where they belong as they arrive, and hashed in order.

Memory is bounded by the ranges in flight, whatever a blob's size.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

from trainyard.errors import CorruptArtifact
from trainyard.store import keys
from trainyard.store.objects import Objects

RANGE_BYTES = 8 << 20
# Of one blob. Times the blobs that move at once, times RANGE_BYTES: the most memory that is held.
IN_FLIGHT = 4
READERS = 16

Progress = Callable[[int], None]


class Downloads(AbstractContextManager["Downloads"]):
    """Reads blobs with a pool of connections. Used from several threads, one a blob."""

    def __init__(self, objects: Objects, readers: int = READERS) -> None:
        self.objects = objects
        self.pool = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="range")

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def write(self, digest: str, size: int, file: int, progress: Progress) -> None:
        """Write the blob to the open file (a descriptor) from its beginning, verified.

        Raises CorruptArtifact if its bytes are others (the file then holds what came), NotFound, OSError.
        """
        key, seen = keys.blob(digest), hashlib.sha256()
        if size <= RANGE_BYTES:
            # One request: no second thread has anything to do meanwhile.
            for block in self._read(key, 0, size, file):
                seen.update(block)
            progress(size)
        else:
            self._write_ranges(key, size, file, seen.update, progress)
        if seen.hexdigest() != digest:
            raise CorruptArtifact(f"s3://{self.objects.bucket}/{key} has SHA-256 {seen.hexdigest()}.")

    def read(self, digest: str, start: int, length: int) -> bytes:
        """Part of a blob, not verified. Raises NotFound, CorruptArtifact (it is too short)."""
        return self.objects.get_range(keys.blob(digest), start, length)

    def _write_ranges(
        self, key: str, size: int, file: int, take: Callable[[bytes], None], progress: Progress
    ) -> None:
        ahead: deque[Future[list[bytes]]] = deque()

        def take_oldest() -> None:
            blocks = ahead.popleft().result()
            for block in blocks:
                take(block)
            progress(sum(map(len, blocks)))

        try:
            for start in range(0, size, RANGE_BYTES):
                length = min(RANGE_BYTES, size - start)
                ahead.append(self.pool.submit(self._read, key, start, length, file))
                if len(ahead) >= IN_FLIGHT:
                    take_oldest()
            while ahead:
                take_oldest()
        finally:
            # Nobody may write to a descriptor that its owner closed, and that may be another file by then.
            for future in ahead:
                future.cancel()
            for future in ahead:
                if not future.cancelled():
                    future.exception()

    def _read(self, key: str, start: int, length: int, file: int) -> list[bytes]:
        return self.objects.get_blocks(key, start, length, lambda at, block: _write_all(file, block, at))


def _write_all(file: int, block: bytes, at: int) -> None:
    written = os.pwrite(file, block, at)
    while written < len(block):
        written += os.pwrite(file, block[written:], at + written)
