"""Blobs out of S3: several ranges at once, written where they belong as they arrive, and hashed in order.

Memory is bounded by a block a connection, whatever a blob's size.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

from trainyard.errors import CorruptArtifact
from trainyard.store import keys
from trainyard.store.objects import Objects

RANGE_BYTES = 8 << 20
HASH_BYTES = 1 << 20
# Of one blob: as far as the writing may be ahead of the hashing.
IN_FLIGHT = 4
CORES = len(os.sched_getaffinity(0))
# More connections than cores, for S3 far away; on few cores more of them only get into each other's way.
READERS = min(32, 4 * CORES)

Progress = Callable[[int], None]


class Downloads(AbstractContextManager["Downloads"]):
    """Reads blobs with a pool of connections. Used from several threads, one a blob."""

    def __init__(self, objects: Objects, readers: int = READERS) -> None:
        self.objects = objects
        self.pool = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="range")

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def write(self, digest: str, size: int, file: int, progress: Progress) -> None:
        """Write the blob to the open file (a descriptor, to be read as well) from its beginning, verified.

        Raises CorruptArtifact if its bytes are others (the file then holds what came), NotFound, OSError.
        """
        key, seen = keys.blob(digest), hashlib.sha256()
        buffer = memoryview(bytearray(min(HASH_BYTES, size)))
        for start, end in self._written(key, size, file):
            # From the file, not from memory that would have to be kept: these pages are the newest there.
            while start < end:
                count = os.preadv(file, [buffer[: end - start]], start)
                if not count:
                    raise CorruptArtifact(
                        f"s3://{self.objects.bucket}/{key} ends at {start} of {size} bytes."
                    )
                seen.update(buffer[:count])
                progress(count)
                start += count
        if seen.hexdigest() != digest:
            raise CorruptArtifact(f"s3://{self.objects.bucket}/{key} has SHA-256 {seen.hexdigest()}.")

    def read(self, digest: str, start: int, length: int) -> bytes:
        """Part of a blob, not verified. Raises NotFound, CorruptArtifact (it is too short)."""
        return self.objects.get_range(keys.blob(digest), start, length)

    def _written(self, key: str, size: int, file: int) -> Iterator[tuple[int, int]]:
        """Ranges (start, end) in order, each once it is in the file; some are on their way meanwhile."""
        ranges = [(start, min(start + RANGE_BYTES, size)) for start in range(0, size, RANGE_BYTES)]
        if len(ranges) == 1:  # no second thread would have anything to do
            self._read(key, *ranges[0], file)
            yield ranges[0]
            return
        ahead: deque[tuple[tuple[int, int], Future[None]]] = deque()
        try:
            for each in ranges:
                ahead.append((each, self.pool.submit(self._read, key, *each, file)))
                if len(ahead) >= IN_FLIGHT:
                    yield self._oldest(ahead)
            while ahead:
                yield self._oldest(ahead)
        finally:
            # Nobody may write to a descriptor that its owner closed, and that may be another file by then.
            for _, future in ahead:
                if not future.cancel():
                    future.exception()

    @staticmethod
    def _oldest(ahead: deque[tuple[tuple[int, int], Future[None]]]) -> tuple[int, int]:
        each, future = ahead.popleft()
        future.result()
        return each

    def _read(self, key: str, start: int, end: int, file: int) -> None:
        self.objects.stream_range(key, start, end - start, lambda at, block: _write_all(file, block, at))


def _write_all(file: int, block: bytes, at: int) -> None:
    written = os.pwrite(file, block, at)
    while written < len(block):
        written += os.pwrite(file, block[written:], at + written)
