"""Blobs on a node's own disk, shared between pods: one folder, any number of processes, no daemon.

<folder>/blobs/<digest>       whole, and verified when it was written
<folder>/coming/<digest>      being written by who holds its lock; its length is its claim on the space
<folder>/quarantine/…         what was found damaged, and why
<folder>/room.lock            held while space is claimed

Locks are `flock`s on the files themselves: they work between containers, and end with their process however
it ends. A blob that is read is locked shared, and what is locked is not evicted.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trainyard.store.documents import timestamp

# Without a bound of its own, the cache takes this part of its disk.
SHARE = 0.5
# Left free on the disk for whoever runs beside.
SPARE_BYTES = 64 << 20
POLL_SECONDS = 0.05
MOST_QUARANTINED = 4
log = logging.getLogger(__name__)


class NoRoom(Exception):
    """The cache cannot take this blob: it is too large, or all there is is in use."""


@dataclass(frozen=True)
class Held:
    """A blob that stays where it is while it is held. file: its open descriptor; fresh: it was written, and
    so verified, just now."""

    path: Path
    file: int
    fresh: bool


class NodeCache:
    """The cache at `folder`. Raises OSError where the disk refuses: go on without it."""

    def __init__(self, folder: Path, most_bytes: int | None = None) -> None:
        self.folder = folder
        self.blobs, self.coming, self.quarantine = (
            folder / name for name in ("blobs", "coming", "quarantine")
        )
        for each in (self.blobs, self.coming, self.quarantine):
            each.mkdir(parents=True, exist_ok=True)
        self.most_bytes = int(shutil.disk_usage(folder).total * SHARE) if most_bytes is None else most_bytes

    @contextmanager
    def hold(
        self, digest: str, size: int, write: Callable[[int], None], wait: Callable[[], None]
    ) -> Iterator[Held]:
        """Hold the blob while the block runs. If it is not there, `write` (to a descriptor, verifying) brings
        it; if another process brings it, that is waited for.

        wait: called between two looks; may raise to give up. Raises NoRoom, OSError, what `write` raises.
        """
        while True:
            held = self._found(digest, size) or self._brought(digest, size, write)
            if held is not None:
                break
            wait()
            time.sleep(POLL_SECONDS)
        try:
            yield held
        finally:
            os.close(held.file)

    def condemn(self, held: Held, reason: str) -> None:
        """Set a damaged blob aside, unless somebody did already."""
        if not _is_at(held.file, held.path):
            return
        aside = self.quarantine / f"{held.path.name}-{time.time_ns()}"
        with suppress(FileNotFoundError):
            os.replace(held.path, aside)
            told = {"sha256": held.path.name, "reason": reason, "at": timestamp(time.time())}
            aside.with_suffix(".json").write_text(json.dumps(told))
            log.warning("cache: %s is damaged (%s): set aside as %s", held.path.name, reason, aside)

    def used(self) -> int:
        """Bytes of blobs, of what is coming, and of what is set aside; never too few."""
        # Files move from left to right and nothing holds them: looked at in this order none is missed, and
        # one that is met twice is known by its inode.
        found = self._all(self.coming, self.blobs, self.quarantine)
        return sum({(status.st_dev, status.st_ino): status.st_size for _, status in found}.values())

    def _found(self, digest: str, size: int) -> Held | None:
        path = self.blobs / digest
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        held = Held(path, file, fresh=False)
        try:
            fcntl.flock(file, fcntl.LOCK_SH)  # an evictor holds it for a moment at most
            status = os.fstat(file)
            if status.st_size != size:
                self.condemn(held, f"it has {status.st_size} bytes, not {size}")
            elif _is_at(file, path):
                with suppress(OSError):  # another user's file
                    _used(path, status)
                return held
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return None

    def _brought(self, digest: str, size: int, write: Callable[[int], None]) -> Held | None:
        """None: somebody else is at it."""
        path = self.coming / digest
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            if not _locked(file) or not _is_at(file, path):
                os.close(file)
                return None
            if (self.blobs / digest).exists():  # since we looked
                path.unlink()
                os.close(file)
                return None
            try:
                os.ftruncate(file, 0)  # what a killed process left
                self._claim(file, size)
                write(file)
                os.fchmod(file, 0o444)
                _used(path, os.fstat(file))  # the kernel's own stamps are milliseconds apart
                os.replace(path, self.blobs / digest)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            fcntl.flock(file, fcntl.LOCK_SH)
        except BaseException:
            with suppress(OSError):
                os.close(file)
            raise
        return Held(self.blobs / digest, file, fresh=True)

    def _claim(self, file: int, size: int) -> None:
        """Make room, and take it at once: others see it by the file's length."""
        if size > self.most_bytes:
            raise NoRoom(f"{size} bytes are more than the cache may hold ({self.most_bytes})")
        room = os.open(self.folder / "room.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(room, fcntl.LOCK_EX)
            excess = self.used() + size - self.most_bytes
            lacking = size + SPARE_BYTES - shutil.disk_usage(self.folder).free
            self._evict(max(excess, lacking))
            os.ftruncate(file, size)
        finally:
            os.close(room)

    def _evict(self, wanted: int) -> None:
        """Free so many bytes: what is set aside, what was left half, then blobs, oldest use first."""
        aside = sorted(self._all(self.quarantine), key=lambda found: found[1].st_mtime_ns)
        keep = 0 if wanted > 0 else 2 * MOST_QUARANTINED  # each with its reason beside it
        for path, status in aside[: max(0, len(aside) - keep)]:
            path.unlink(missing_ok=True)
            wanted -= status.st_size
        left = self._all(self.coming)
        # A tree that links to a blob keeps its bytes: taking the name away would free nothing.
        blobs = [found for found in self._all(self.blobs) if found[1].st_nlink == 1]
        for path, status in [*left, *sorted(blobs, key=lambda found: found[1].st_atime_ns)]:
            if wanted <= 0:
                return
            if _unlink_unused(path):
                log.info("cache: %s (%d bytes) made room", path.name, status.st_size)
                wanted -= status.st_size
        if wanted > 0:
            raise NoRoom(f"{wanted} bytes too few, and the rest is in use")

    @staticmethod
    def _all(*folders: Path) -> list[tuple[Path, os.stat_result]]:
        found = []
        for folder in folders:
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):
                    found.append((Path(entry.path), entry.stat(follow_symlinks=False)))
        return found


def _used(path: Path, status: os.stat_result) -> None:
    """Note the time of the last use. That of the last change belongs to the trees that link to it."""
    os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))


def _unlink_unused(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if not _locked(file) or not _is_at(file, path):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    """Is the open file still what lies under this name?"""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    mine = os.fstat(file)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
