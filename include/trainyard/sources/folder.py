"""A folder on disk: a mounted volume, or a checkpoint that somebody trained. Read to hash, then to send."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact, NotFound, PermanentError
from trainyard.hub_headers import Header
from trainyard.hub_policy import MAX_FILES, HubFile, select
from trainyard.sources.base import MAX_JSON, Reader, listing_digest, parse_json, read_header
from trainyard.store.objects import Objects

CHUNK = 1 << 20


class FolderSource:
    """place: an absolute path. A revision is a digest of the paths, sizes and contents that are taken."""

    def __init__(self, place: str) -> None:
        self.place = Path(place)
        self.label = f"file://{place}"
        self._digests: dict[str, str] = {}

    def pin(self) -> str:
        taken = select(self._list()).take
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            return listing_digest(pool.map(self._identified, taken))

    def files(self, revision: str) -> list[HubFile]:
        listed = self._list()
        select(listed)
        if (found := self.pin()) != revision:
            raise Conflict(
                f"{self.label} has revision {found}, not {revision}: its files changed since it was pinned. "
                "Begin a release of what is there now."
            )
        return listed

    def read_json(self, revision: str, path: str) -> dict[str, Any]:
        where = f"{self.label}/{path}"
        try:
            with (self.place / path).open("rb") as file:
                body = file.read(MAX_JSON + 1)
        except FileNotFoundError:
            raise NotFound(f"{where} does not exist.") from None
        if len(body) > MAX_JSON:
            raise CorruptArtifact(
                f"{where} is larger than {MAX_JSON} bytes, which is absurd for such a file."
            )
        return parse_json(body, where)

    def headers(self, revision: str, files: Iterable[HubFile]) -> Mapping[str, Header]:
        return {file.path: self._header(file) for file in files if file.path.endswith(".safetensors")}

    def identify(self, revision: str, file: HubFile) -> HubFile:
        return self._identified(file)

    def reader(self, revision: str, file: HubFile) -> Reader:
        return _FileReader(self.place / file.path)

    def stream(self, revision: str, file: HubFile) -> Iterator[bytes]:
        with (self.place / file.path).open("rb") as source:
            yield from iter(lambda: source.read(CHUNK), b"")

    def copy(self, objects: Objects, file: HubFile) -> bool:
        return False

    def _list(self) -> list[HubFile]:
        """Symlinks are listed as such, for the policy to refuse; other things than files are refused here."""
        if not self.place.is_dir():
            raise NotFound(f"{self.label} is no folder here. Mount it into the pod, or check the path.")
        found: list[HubFile] = []
        for folder, folders, names in os.walk(self.place, followlinks=False):
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            for name in sorted(names + links):
                path = Path(folder) / name
                status = path.lstat()
                kind = stat.S_IFMT(status.st_mode)
                relative = path.relative_to(self.place).as_posix()
                if kind not in (stat.S_IFREG, stat.S_IFLNK):
                    raise PermanentError(f"{self.label}/{relative} is neither a file nor a folder: refused.")
                mode = "120000" if kind == stat.S_IFLNK else None
                found.append(HubFile(relative, status.st_size, None, "", mode))
                if len(found) > MAX_FILES:
                    raise PermanentError(f"{self.label} has more than {MAX_FILES} files: that is no model.")
        return sorted(found)

    def _identified(self, file: HubFile) -> HubFile:
        digest = self._digests.get(file.path)
        if digest is None:
            with (self.place / file.path).open("rb") as source:
                digest = hashlib.file_digest(source, "sha256").hexdigest()
            self._digests[file.path] = digest
        return replace(file, lfs_sha256=digest)

    def _header(self, file: HubFile) -> Header:
        with (self.place / file.path).open("rb") as source:
            return read_header(
                lambda start, length: os.pread(source.fileno(), length, start),
                file,
                f"{self.label}/{file.path}",
            )


class _FileReader:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read_into(self, start: int, view: memoryview, check_stop: Callable[[], None]) -> None:
        with self.path.open("rb", buffering=0) as source:
            source.seek(start)
            done = 0
            while done < len(view):
                check_stop()
                count = source.readinto(view[done : done + CHUNK])
                if not count:
                    raise CorruptArtifact(f"{self.path} became shorter while it was read.")
                done += count
