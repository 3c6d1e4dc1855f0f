"""Blobs out of S3: hashed and written where they belong as they arrive.

A blob is one stream, hashed while it is still in the processor's cache. Where connections are left over,
later ranges of it come at the same time, and are hashed from the file. Memory is bounded by a block a
connection, whatever a blob's size.
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
from trainyard.store.lanes import Lanes
from trainyard.store.objects import Objects

# Long enough for a request to cost nothing beside it, short enough to share one blob among connections.
RANGE_BYTES = 32 << 20
HASH_BYTES = 1 << 20
# Of one blob: as far as the writing may be ahead of the hashing.
AHEAD = 4
CORES = len(os.sched_getaffinity(0))
READERS = min(32, 4 * CORES)

Progress = Callable[[int], None]


class Downloads(AbstractContextManager["Downloads"]):
    """Reads blobs with a pool of connections. Used from several threads, one a blob."""

    def __init__(self, objects: Objects, readers: int = READERS) -> None:
        self.objects = objects
        self.lanes = Lanes(CORES, readers)
        self.pool = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="range")

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def write(self, digest: str, size: int, file: int, progress: Progress) -> None:
        """Write the blob to the open file (a descriptor, to be read as well) from its beginning, verified.

        progress: told bytes as they are hashed; may raise to give up.

        Raises CorruptArtifact if its bytes are others (the file then holds what came), NotFound, OSError.
        """
        with self.lanes.one(lambda: progress(0)):
            found = _Blob(self, keys.blob(digest), size, file, progress).digest()
        if found != digest:
            raise CorruptArtifact(f"s3://{self.objects.bucket}/{keys.blob(digest)} has SHA-256 {found}.")

    def read(self, digest: str, start: int, length: int) -> bytes:
        """Part of a blob, not verified. Raises NotFound, CorruptArtifact (it is too short)."""
        content = self.objects.get_range(keys.blob(digest), start, length)
        self.lanes.moved(length)
        return content


class _Blob:
    """One on its way to a file."""

    def __init__(self, downloads: Downloads, key: str, size: int, file: int, progress: Progress) -> None:
        self.objects, self.lanes, self.pool = downloads.objects, downloads.lanes, downloads.pool
        self.key, self.size, self.file, self.progress = key, size, file, progress
        self.seen = hashlib.sha256()
        self.asked = 0
        self.ahead: deque[tuple[int, int, Future[None]]] = deque()

    def digest(self) -> str:
        """Brings it; returns its SHA-256."""
        try:
            while self.asked < self.size or self.ahead:
                if not self.ahead:
                    start, end = self._next()
                    self._send_ahead()
                    self._stream(start, end)
                else:
                    start, end, future = self.ahead.popleft()
                    self._send_ahead()
                    future.result()
                    self._hash(start, end)
        finally:
            # Nobody may write to a descriptor that its owner closed, and that may be another file by then.
            for _, _, future in self.ahead:
                if not future.cancel():
                    future.exception()
        return self.seen.hexdigest()

    def _next(self) -> tuple[int, int]:
        start = self.asked
        self.asked = min(start + RANGE_BYTES, self.size)
        return start, self.asked

    def _send_ahead(self) -> None:
        while self.asked < self.size and len(self.ahead) < AHEAD and self.lanes.spare():
            start, end = self._next()
            future = self.pool.submit(self._write, start, end)
            future.add_done_callback(lambda _: self.lanes.give())
            self.ahead.append((start, end, future))

    def _stream(self, start: int, end: int) -> None:
        """Hash and write what comes. A read that broke comes again from its start, and is hashed once."""
        hashed = start

        def sink(at: int, block: bytes) -> None:
            nonlocal hashed
            if at + len(block) > hashed:
                fresh = memoryview(block)[max(0, hashed - at) :]
                self.seen.update(fresh)
                _write_all(self.file, fresh, at + len(block) - len(fresh))
                hashed += len(fresh)
                self.lanes.moved(len(fresh))
                self.progress(len(fresh))

        self.objects.stream_range(self.key, start, end - start, sink)

    def _write(self, start: int, end: int) -> None:
        def sink(at: int, block: bytes) -> None:
            _write_all(self.file, memoryview(block), at)
            self.lanes.moved(len(block))

        self.objects.stream_range(self.key, start, end - start, sink)

    def _hash(self, start: int, end: int) -> None:
        """From the file, not from memory that would have to be kept: these pages are the newest there."""
        buffer = memoryview(bytearray(min(HASH_BYTES, end - start)))
        while start < end:
            count = os.preadv(self.file, [buffer[: end - start]], start)
            if not count:
                raise CorruptArtifact(
                    f"s3://{self.objects.bucket}/{self.key} ends at {start} of {self.size} bytes."
                )
            self.seen.update(buffer[:count])
            self.progress(count)
            start += count


def _write_all(file: int, block: memoryview, at: int) -> None:
    while block:
        written = os.pwrite(file, block, at)
        block, at = block[written:], at + written
