"""A model that is in our bucket already: what its source said once, whatever it says now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trainyard.errors import CorruptArtifact, NotFound
from trainyard.hub_headers import Header
from trainyard.hub_policy import HubFile
from trainyard.sources.base import MAX_JSON, parse_json, read_header
from trainyard.store import keys
from trainyard.store.manifests import FileEntry
from trainyard.store.models import read_model
from trainyard.store.objects import Objects
from trainyard.store.trees import read_file


class MirroredModel:
    """repo, revision: of the model's manifest. Raises NotFound where there is none, CorruptArtifact."""

    def __init__(self, objects: Objects, repo: str, revision: str) -> None:
        self.objects = objects
        self.manifest = read_model(objects, repo, revision)
        self._entries = {entry.path: entry for entry in self.manifest.files}

    def files(self, revision: str) -> list[HubFile]:
        return [HubFile(entry.path, entry.size, entry.sha256, "") for entry in self.manifest.files]

    def read_json(self, revision: str, path: str) -> dict[str, Any]:
        entry = self._entries.get(path)
        if entry is None:
            raise NotFound(f"{self.manifest.key} names no {path}.")
        where = f"{self.manifest.key}: {path}"
        if entry.size > MAX_JSON:
            raise CorruptArtifact(
                f"{where} is larger than {MAX_JSON} bytes, which is absurd for such a file."
            )
        return parse_json(read_file(self.objects, entry), where)

    def headers(self, revision: str, files: Iterable[HubFile]) -> Mapping[str, Header]:
        return {file.path: self._header(file) for file in files if file.path.endswith(".safetensors")}

    def _header(self, file: HubFile) -> Header:
        entry = self._entries[file.path]
        return read_header(
            lambda start, length: self._range(entry, start, length),
            file,
            f"{self.manifest.key}: {file.path}",
        )

    def _range(self, entry: FileEntry, start: int, length: int) -> bytes:
        begin = entry.pack.offset if entry.pack else 0
        return self.objects.get_range(keys.blob(entry.blob), begin + start, length)
