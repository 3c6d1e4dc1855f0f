"""Large content in and out of S3 in parts, hashed while it moves. Memory is bounded by parts in flight, not
by size."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.errors import CorruptArtifact, NotFound, PermanentError
from trainyard.store.objects import Objects
from trainyard.store.s3errors import translate

PART_SIZE = 8 << 20
IN_FLIGHT = 3
# S3 takes 10,000 parts at most.
MAX_PARTS = 9_000

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Sent:
    """size in bytes; sha256 in hex; etag of the object."""

    size: int
    sha256: str
    etag: str


def part_size_for(size: int | None) -> int:
    """Bytes a part, so that `size` bytes fit into the parts that S3 allows."""
    return max(PART_SIZE, -(-(size or 0) // MAX_PARTS))


def upload(
    objects: Objects,
    key: str,
    chunks: Iterable[bytes],
    *,
    size: int | None = None,
    check: Callable[[int, str], None] | None = None,
    progress: Progress | None = None,
) -> Sent:
    """Stream `chunks` into `key`, in parts if they do not fit into one.

    check: called with (size, sha256) before the object becomes visible; what it raises aborts the upload.
    progress: called with the bytes of every part that arrived, from other threads.
    """
    digest, total = hashlib.sha256(), 0
    parts = _parts(chunks, part_size_for(size))
    first = next(parts, b"")
    second = next(parts, None)
    if second is None:
        digest.update(first)
        if check:
            check(len(first), digest.hexdigest())
        etag = objects.put(key, first)
        if progress:
            progress(len(first))
        return Sent(len(first), digest.hexdigest(), etag)

    def all_parts() -> Iterator[bytes]:
        yield first
        yield second
        yield from parts

    with ThreadPoolExecutor(max_workers=IN_FLIGHT) as pool, _Multipart(objects, key) as multipart:
        sending: deque[Future[int]] = deque()
        for number, part in enumerate(all_parts(), 1):
            sending.append(pool.submit(multipart.send, number, part))
            digest.update(part)  # beside the sending: hashing releases the GIL
            total += len(part)
            del part
            while len(sending) >= IN_FLIGHT:
                _report(sending.popleft().result(), progress)
        for future in sending:
            _report(future.result(), progress)
        if check:
            check(total, digest.hexdigest())
        etag = multipart.complete(total)
    return Sent(total, digest.hexdigest(), etag)


def upload_file(objects: Objects, path: Path, key: str, *, progress: Progress | None = None) -> Sent:
    """Stream a file into `key`; its digest is of what was sent."""
    with path.open("rb") as source:
        chunks = iter(lambda: source.read(1 << 20), b"")
        return upload(objects, key, chunks, size=path.stat().st_size, progress=progress)


def read_chunks(
    objects: Objects, key: str, size: int, *, etag: str | None = None, pool: ThreadPoolExecutor | None = None
) -> Iterator[bytes]:
    """The object's bytes in order, fetched by ranges, some ahead when a pool is given."""
    ranges = [(start, min(PART_SIZE, size - start)) for start in range(0, size, PART_SIZE)]
    if pool is None or len(ranges) < 2:
        for start, length in ranges:
            yield objects.get_range(key, start, length, etag)
        return
    ahead: deque[Future[bytes]] = deque()
    try:
        for start, length in ranges:
            ahead.append(pool.submit(objects.get_range, key, start, length, etag))
            if len(ahead) >= IN_FLIGHT:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()


def download(
    objects: Objects,
    key: str,
    target: Path,
    *,
    size: int,
    sha256: str,
    pool: ThreadPoolExecutor | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the object to `target`: verified while writing, and there only once it is whole and right.

    Raises CorruptArtifact if its bytes are others, PermanentError if the disk is full; leaves no temporary
    file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name[:100]}.{uuid.uuid4().hex[:8]}.part"
    digest, written = hashlib.sha256(), 0
    try:
        with temporary.open("wb") as file:
            for chunk in read_chunks(objects, key, size, pool=pool):
                file.write(chunk)
                digest.update(chunk)
                written += len(chunk)
                if progress:
                    progress(len(chunk))
        if written != size or digest.hexdigest() != sha256:
            raise CorruptArtifact(
                f"{target.name}: s3://{objects.bucket}/{key} has SHA-256 {digest.hexdigest()}, not {sha256}."
            )
        os.replace(temporary, target)
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise
        raise PermanentError(
            f"Cannot write {target.name} ({size} bytes): {error}. Give the pod more ephemeral storage."
        ) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


class _Multipart:
    """A multipart upload that is aborted unless it was completed."""

    def __init__(self, objects: Objects, key: str) -> None:
        self.objects, self.key = objects, key
        self.place = {"Bucket": objects.bucket, "Key": key}
        self.where = f"s3://{objects.bucket}/{key}"
        self.parts: dict[int, dict[str, Any]] = {}
        self.done = False

    def __enter__(self) -> _Multipart:
        with translate("begin an upload to", self.where):
            reply = self.objects.client.create_multipart_upload(**self.place, ChecksumAlgorithm="CRC32")
        self.upload = reply["UploadId"]
        return self

    def send(self, number: int, part: bytes) -> int:
        def send() -> Any:
            return self.objects.client.upload_part(
                **self.place, UploadId=self.upload, PartNumber=number, Body=part, ChecksumAlgorithm="CRC32"
            )

        # Again where it arrived damaged: botocore takes a 400 for an answer.
        reply = self.objects.repeated(f"upload part {number} of", self.key, send)
        entry = {"PartNumber": number, "ETag": reply["ETag"]}
        if "ChecksumCRC32" in reply:
            entry["ChecksumCRC32"] = reply["ChecksumCRC32"]
        self.parts[number] = entry
        return len(part)

    def complete(self, size: int) -> str:
        listed = [self.parts[number] for number in sorted(self.parts)]
        try:
            with translate("complete the upload of", self.where):
                reply = self.objects.client.complete_multipart_upload(
                    **self.place, UploadId=self.upload, MultipartUpload={"Parts": listed}
                )
        except NotFound:
            # The reply to our own first try was lost: the upload is gone because it is complete.
            found = self.objects.head_or_none(self.key)
            if found is None or found.size != size:
                raise
            reply = {"ETag": found.etag}
        self.done = True
        return str(reply["ETag"])

    def __exit__(self, *_: object) -> None:
        if not self.done:
            with suppress(Exception):  # the first error tells more
                self.objects.client.abort_multipart_upload(**self.place, UploadId=self.upload)


def _parts(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """`chunks` joined and cut to exactly `size` bytes each, the last one shorter."""
    buffer: list[bytes] = []
    held = 0
    for chunk in chunks:
        view = memoryview(chunk)
        while held + len(view) >= size:
            taken = size - held
            buffer.append(bytes(view[:taken]))
            yield b"".join(buffer)
            view, buffer, held = view[taken:], [], 0
        if view:
            buffer.append(bytes(view))
            held += len(view)
    if buffer:
        yield b"".join(buffer)


def _report(size: int, progress: Progress | None) -> None:
    if progress:
        progress(size)
