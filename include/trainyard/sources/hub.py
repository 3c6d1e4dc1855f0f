"""A repository on the Hub, at a commit."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from trainyard.hub import Hub
from trainyard.hub_headers import Header
from trainyard.hub_policy import HubFile
from trainyard.hub_reader import Reader
from trainyard.sources.base import RangeIgnored, read_header
from trainyard.store.objects import Objects

# A model of 200 shards is looked at in seconds; the Hub counts a request for each.
LOOKS = 8


class HubSource:
    """revision: branch, tag or commit, for `pin` alone."""

    def __init__(self, hub: Hub, repo: str, revision: str) -> None:
        self.hub, self.repo, self.revision = hub, repo, revision
        self.label = hub.endpoint
        self._readers: dict[tuple[str, str], Reader] = {}
        self._large = threading.Lock()

    def pin(self) -> str:
        return self.hub.resolve(self.repo, self.revision)

    def files(self, revision: str) -> list[HubFile]:
        return self.hub.files(self.repo, revision)

    def read_json(self, revision: str, path: str) -> dict[str, Any]:
        return self.hub.read_json(self.repo, revision, path)

    def headers(self, revision: str, files: Iterable[HubFile]) -> Mapping[str, Header]:
        shards = [file for file in files if file.path.endswith(".safetensors")]
        with ThreadPoolExecutor(max_workers=LOOKS, thread_name_prefix="headers") as pool:
            try:
                found = list(pool.map(lambda file: self._header(revision, file), shards))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return {file.path: header for file, header in zip(shards, found, strict=True)}

    def identify(self, revision: str, file: HubFile) -> HubFile:
        return file

    def reader(self, revision: str, file: HubFile) -> Reader:
        """The same one for each call: it knows the file's address on the CDN by then."""
        known = self._readers.get((revision, file.path))
        if known is None:
            known = self.hub.content.reader(self.repo, revision, file.path, file.size, file.lfs_sha256)
            self._readers[revision, file.path] = known
        return known

    def stream(self, revision: str, file: HubFile) -> Iterator[bytes]:
        return self.hub.stream(self.repo, revision, file.path, file.size)

    def copy(self, objects: Objects, file: HubFile) -> bool:
        return False

    def _header(self, revision: str, file: HubFile) -> Header:
        reader = self.reader(revision, file)
        with ExitStack() as stack:

            def read(start: int, length: int) -> bytes:
                if start:  # beyond the first look: a large one, and of those only one at a time is in memory
                    stack.enter_context(self._large)
                body = bytearray(length)
                try:
                    reader.read_into(start, memoryview(body), lambda: None)
                except RangeIgnored:
                    return self.hub.content.read_range(self.repo, revision, file.path, start, length)
                return bytes(body)

            return read_header(read, file, f"{self.repo}@{revision}: {file.path}")
