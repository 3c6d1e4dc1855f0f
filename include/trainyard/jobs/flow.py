"""One file on its way from a source to its blob: sent in any order, hashed in order, visible if right."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator

from trainyard.errors import CorruptArtifact, NotFound
from trainyard.hub_policy import HubFile
from trainyard.sources.base import Reader
from trainyard.store import keys
from trainyard.store.objects import Objects
from trainyard.store.uploads import Upload, open_upload


class Piece:
    """A part's buffer. It is free again once it was both sent and hashed."""

    def __init__(self, buffer: bytearray) -> None:
        self.buffer, self.size, self.uses = buffer, len(buffer), 1


class UploadGone(Exception):
    """Another writer finished or aborted the upload under way."""


class Abandoned(Exception):
    """Another part of the same file failed: this one need not go on."""


class Flow:
    """One try at one file. Safe to use from several threads, each with parts of its own."""

    def __init__(
        self,
        objects: Objects,
        file: HubFile,
        reader: Reader,
        part_size: int,
        *,
        attempt: int = 0,
        upload: Upload | None = None,
        whole: bool = False,
    ) -> None:
        self.objects, self.file, self.reader, self.attempt, self.whole = objects, file, reader, attempt, whole
        self.digest = keys.check_digest(file.path, file.lfs_sha256)
        self.upload = upload
        if upload is None and file.size > part_size:
            self.upload = open_upload(objects, self.digest, file.size, part_size)
        if self.upload is not None:
            part_size = self.upload.part_size
        self.part_size = part_size
        self.count = max(1, -(-file.size // part_size))
        self.handed = self.under_way = self.moved = self.sent = 0
        self.error: Exception | None = None
        self._hash, self._hashed, self._hashing = hashlib.sha256(), 0, False
        self._ready: dict[int, Piece] = {}
        self._lock = threading.Lock()

    @property
    def is_handed_out(self) -> bool:
        """No part is left to begin."""
        return self.error is not None or self.handed >= (1 if self.whole else self.count)

    def length(self, number: int) -> int:
        """Bytes of part `number`, from 0."""
        return min(self.part_size, self.file.size - number * self.part_size)

    def move(
        self, number: int, piece: Piece, check_stop: Callable[[], None], free: Callable[[Piece], None]
    ) -> int:
        """Read, hash and send one part; returns its bytes."""

        def check() -> None:
            check_stop()
            if self.error is not None:
                raise Abandoned

        self.reader.read_into(number * self.part_size, memoryview(piece.buffer), check)
        return self._pass(number, piece, free)

    def move_all(
        self,
        chunks: Iterator[bytes],
        piece: Piece,
        check_stop: Callable[[], None],
        free: Callable[[Piece], None],
    ) -> None:
        """The same for all parts, out of one stream."""
        rest = memoryview(b"")
        for number in range(self.count):
            wanted, filled = self.length(number), 0
            if wanted < len(piece.buffer):
                piece = Piece(bytearray(wanted))  # the last one: a buffer that was sent cannot be cut
            while filled < wanted:
                check_stop()
                if not rest:
                    rest = memoryview(next(chunks, None) or b"")
                    if not rest:
                        raise CorruptArtifact(f"{self.file.path} ends before its {self.file.size} bytes.")
                taken = min(len(rest), wanted - filled)
                piece.buffer[filled : filled + taken] = rest[:taken]
                rest, filled = rest[taken:], filled + taken
            self._pass(number, piece, free)
        if rest or any(chunks):
            raise CorruptArtifact(
                f"{self.file.path} has more than the {self.file.size} bytes that were listed."
            )

    def verify(self) -> None:
        """Raises CorruptArtifact unless all that came has the digest that was promised."""
        found = self._hash.hexdigest()
        if self._hashed != self.count or found != self.digest:
            raise CorruptArtifact(
                f"{self.file.path} has SHA-256 {found}, its source says {self.digest}. The source is "
                "damaged, or something on the way changes it."
            )

    def drop(self, free: Callable[[Piece], None]) -> None:
        """Give back what still waits to be hashed."""
        for piece in self._ready.values():
            free(piece)
        self._ready.clear()

    def _pass(self, number: int, piece: Piece, free: Callable[[Piece], None]) -> int:
        size = len(piece.buffer)
        self._take(number, piece, free)
        if self.upload is None:
            self.verify()  # a file of one part: nothing of it is in S3 yet
            self.objects.put(keys.blob(self.digest), bytes(piece.buffer))
            sent = True
        else:
            try:
                sent = self.upload.send(number + 1, piece.buffer)
            except NotFound as error:
                raise UploadGone from error
        with self._lock:
            self.moved += size
            self.sent += size if sent else 0
        return size

    def _take(self, number: int, piece: Piece, free: Callable[[Piece], None]) -> None:
        """Hash whatever is next in order, unless another thread is at it: it takes this one too then."""
        with self._lock:
            piece.uses += 1
            self._ready[number] = piece
            if self._hashing:
                return
            self._hashing = True
        while True:
            with self._lock:
                following = self._ready.pop(self._hashed, None)
                if following is None:
                    self._hashing = False
                    return
            self._hash.update(following.buffer)
            with self._lock:
                self._hashed += 1
            free(following)
