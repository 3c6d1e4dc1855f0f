"""Files of one blob to their places in a tree: from S3 or from the node's cache, verified, whole or not at
all."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from trainyard.errors import CorruptArtifact, NotFound, PermanentError, StoreUnavailable
from trainyard.store import damage
from trainyard.store.downloads import Downloads
from trainyard.store.manifests import FileEntry
from trainyard.store.markers import check, digest_of_file
from trainyard.store.node_cache import Held, NodeCache, NoRoom
from trainyard.store.parallel import Stop

log = logging.getLogger(__name__)
_COPY = 64 << 20
_names = itertools.count()


class Placer:
    """Brings blobs into the tree at `into`. Used from several threads, one a blob."""

    def __init__(
        self,
        downloads: Downloads,
        into: Path,
        fingerprint: str | None,
        cache: NodeCache | None,
        stop: Stop,
        progress: Callable[[int], None],
    ) -> None:
        self.downloads, self.into, self.fingerprint = downloads, into, fingerprint
        self.cache, self.stop, self.progress = cache, stop, progress
        self.cached = 0
        self._folders: set[Path] = set()
        self._lock, self._cutting = threading.Lock(), threading.Lock()

    def bring(self, blob: str, size: int, entries: Sequence[FileEntry]) -> dict[str, int]:
        """Write the files that lie in the blob (of `size` bytes); returns path -> time of change (ns).

        Raises CorruptArtifact (naming the file), PermanentError (disk full), StoreUnavailable.
        """
        for attempt in (1, 2):
            try:
                with _disk_errors(entries[0].path):
                    # A pack is asked for file by file the second time: the error then names the right one.
                    through = self.cache if attempt == 1 or entries[0].pack is None else None
                    return self._bring(blob, size, entries, through)
            except NotFound as error:
                self._give_up(blob, size, entries[0], f"its blob {blob} is gone", error)
            except CorruptArtifact as error:
                # Once may have happened on the way; twice is how it lies there.
                if attempt == 2:
                    self._give_up(blob, size, entries[0], str(error), error)
                log.warning("%s arrived damaged (%s), fetching it again", entries[0].path, error)
        raise AssertionError("unreachable")

    def _give_up(self, blob: str, size: int, entry: FileEntry, reason: str, error: Exception) -> None:
        # The one who says so may see all of the files in the blob, or only the first.
        path = getattr(error, "path", entry.path)
        done = damage.handle(self.downloads.objects, blob, size, self.fingerprint, path, reason)
        if done is None:
            raise StoreUnavailable(
                f"{path} arrived damaged more than once, but S3's copy is sound: something on the way "
                f"changes it. {reason}"
            ) from error
        raise CorruptArtifact(f"{path} is damaged in S3: {reason} {done}") from error

    def _bring(
        self, blob: str, size: int, entries: Sequence[FileEntry], cache: NodeCache | None
    ) -> dict[str, int]:
        if cache is not None:
            try:
                return self._through_cache(cache, blob, size, entries)
            except (NoRoom, OSError) as error:
                if isinstance(error, ConnectionError | TimeoutError):
                    raise
                log.warning("cache: going on without it for %s: %s", entries[0].path, error)
        if entries[0].pack is None:
            return self._download(blob, size, entries)
        first = min(_start(entry) for entry in entries)
        last = max(_start(entry) + entry.size for entry in entries)
        content = self.downloads.read(blob, first, last - first)
        self.progress(sum(entry.size for entry in entries))
        return self._cut(content, first, entries, f"pack {blob}")

    def _download(self, blob: str, size: int, entries: Sequence[FileEntry]) -> dict[str, int]:
        with self._new_file(entries[0]) as (file, temporary):
            self.downloads.write(blob, size, file, self.progress)
            states = {entries[0].path: self._settle(file, temporary, entries[0])}
        for entry in entries[1:]:  # the same content under other names
            source = os.open(self.into / entries[0].path, os.O_RDONLY)
            try:
                states[entry.path] = self._copy(source, entry)
                self.progress(entry.size)
            finally:
                os.close(source)
        return states

    def _through_cache(
        self, cache: NodeCache, blob: str, size: int, entries: Sequence[FileEntry]
    ) -> dict[str, int]:
        def write(file: int) -> None:
            self.downloads.write(blob, size, file, lambda moved: self.stop.check())

        while True:
            with cache.hold(blob, size, write, self.stop.check) as held:
                # What lay there may have rotted: a disk is no more to be trusted than a wire.
                if not held.fresh and digest_of_file(held.file) != blob:
                    cache.condemn(held, "its content is not what its name says")
                    continue
                if not held.fresh:
                    self._count(sum(entry.size for entry in entries))
                states = self._from_held(held, entries)
            self.progress(sum(entry.size for entry in entries))
            return states

    def _from_held(self, held: Held, entries: Sequence[FileEntry]) -> dict[str, int]:
        if entries[0].pack is None:
            return {entry.path: self._link(held, entry) for entry in entries}
        content = os.pread(held.file, os.fstat(held.file).st_size, 0)
        return self._cut(content, 0, entries, f"pack {held.path.name}")

    def _cut(self, content: bytes, begin: int, entries: Sequence[FileEntry], where: str) -> dict[str, int]:
        """Small files out of a pack, of which `content` is the part from `begin`."""
        states = {}
        view = memoryview(content)
        # One thread at a time: several would hand the interpreter's lock to and fro with every system call,
        # at many times the processor time of one. The next packs come in meanwhile.
        with self._cutting:
            for entry in entries:
                self.stop.check()
                start = _start(entry) - begin
                piece = view[start : start + entry.size]
                if hashlib.sha256(piece).hexdigest() != entry.sha256:
                    check(bytes(piece), entry, where)
                with self._new_file(entry) as (file, temporary):
                    _write(file, piece)
                    states[entry.path] = self._settle(file, temporary, entry)
        return states

    def _link(self, held: Held, entry: FileEntry) -> int:
        """The cached blob as a file of the tree: the same bytes on disk where both are on one mount."""
        temporary = self._temporary(entry)
        try:
            os.link(held.path, temporary)
        except OSError:
            return self._copy(held.file, entry)
        try:
            return self._settle(held.file, temporary, entry)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    def _copy(self, source: int, entry: FileEntry) -> int:
        with self._new_file(entry) as (file, temporary):
            at = 0
            while at < entry.size:  # a reflink where the file system can
                self.stop.check()
                moved = _copy_range(source, file, min(_COPY, entry.size - at), at)
                if not moved:
                    raise CorruptArtifact(f"{entry.path}: its source ends at {at} of {entry.size} bytes.")
                at += moved
            return self._settle(file, temporary, entry)

    @contextmanager
    def _new_file(self, entry: FileEntry) -> Iterator[tuple[int, str]]:
        """A new file in the entry's folder, gone at the end unless it was settled."""
        temporary = self._temporary(entry)
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            yield file, temporary
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        finally:
            os.close(file)

    def _temporary(self, entry: FileEntry) -> str:
        folder, _, name = entry.path.rpartition("/")
        place = self.into / folder
        if place not in self._folders:
            place.mkdir(parents=True, exist_ok=True)
            self._folders.add(place)
        return f"{place}/.{name[:100]}.{os.getpid()}-{next(_names)}.part"

    def _count(self, size: int) -> None:
        with self._lock:
            self.cached += size

    def _settle(self, file: int, temporary: str, entry: FileEntry) -> int:
        os.rename(temporary, self.into / entry.path)
        return os.fstat(file).st_mtime_ns


def _start(entry: FileEntry) -> int:
    return entry.pack.offset if entry.pack else 0


def _write(file: int, content: memoryview) -> None:
    while content:
        content = content[os.write(file, content) :]


def _copy_range(source: int, target: int, count: int, at: int) -> int:
    try:
        return os.copy_file_range(source, target, count, at, at)
    except OSError:  # across file systems, on older kernels
        return os.pwrite(target, os.pread(source, min(count, 1 << 20), at), at)


@contextmanager
def _disk_errors(path: str) -> Iterator[None]:
    """What the disk refuses is told as such; what a connection does is not."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise
        raise PermanentError(
            f"Cannot write {path}: {error}. Give the pod more ephemeral storage, or a larger instance store."
        ) from error
