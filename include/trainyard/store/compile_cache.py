"""libneuronxla's compile cache, kept in S3: an index a configuration, contents by digest.

<prefix><key>/index.json     which entries a compile of that configuration needed
<prefix><key>/writer.json    who compiles it now
<prefix>blobs/<2>/<digest>   contents

The contents are not those below `blobs/`: a compile pod may not write there, and these may expire.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact, PermanentError
from trainyard.store import keys
from trainyard.store.documents import SCHEMA, decode, encode, take, timestamp
from trainyard.store.manifests import FileEntry, files_from_json
from trainyard.store.objects import Objects

PREFIX = "compile-cache/"
ATTEMPTS = 12
# A model has some dozens of graphs: more entries are no configuration.
MAX_ENTRIES = 1024
KEPT_FAULTS = 20

NEFF, DONE, LOG = "model.neff", "model.done", "model.log"
# neuronxcc-<version>+<hash>/MODULE_<hlo hash>+<flags hash>
_MODULE = re.compile(r"neuronxcc-[0-9A-Za-z.+_-]{1,80}/MODULE_[0-9A-Za-z]{1,80}\+[0-9A-Za-z]{1,80}")
_PREFIX = re.compile(r"([a-z0-9][a-z0-9._-]*/)+")


@dataclass(frozen=True)
class Entry:
    """module: path of its folder in the cache; files: names in that folder; by: who compiled it; at: RFC
    3339."""

    module: str
    files: tuple[FileEntry, ...]
    by: str = ""
    at: str = ""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def fault(self) -> str:
        """Why a compile could not use it; "" if it can."""
        names = {file.path: file.size for file in self.files}
        if LOG in names:
            return "it is of a compilation that failed"
        if not names.get(NEFF) or DONE not in names:
            return f"it lacks {NEFF} or {DONE}"
        if any("/" in name or name.endswith(".lock") for name in names):
            return "it holds what is no part of an entry"
        return ""

    def to_json(self) -> dict[str, Any]:
        files = [file.to_json() for file in self.files]
        return {"module": self.module, "files": files, "by": self.by, "at": self.at}

    @staticmethod
    def from_json(document: Any, where: str) -> Entry:
        if not isinstance(document, dict):
            raise CorruptArtifact(f"{where}: an entry is {document!r}, not an object.")
        module = take(document, "module", str, where)
        if not is_module(module):
            raise CorruptArtifact(f"{where}: {module!r} is no neuronxcc-…/MODULE_… folder.")
        return Entry(
            module,
            files_from_json(document, f"{where}: {module}"),
            take(document, "by", str, where),
            take(document, "at", str, where),
        )


@dataclass(frozen=True)
class Index:
    """What a configuration's compile needs. faults: the last entries that were dropped, and why."""

    key: str
    entries: tuple[Entry, ...] = ()
    faults: tuple[Mapping[str, str], ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "compile-cache",
            "key": self.key,
            "entries": [entry.to_json() for entry in sorted(self.entries, key=lambda entry: entry.module)],
            "faults": [dict(fault) for fault in self.faults],
        }

    @staticmethod
    def from_json(document: dict[str, Any], where: str) -> Index:
        if document.get("kind") != "compile-cache":
            raise CorruptArtifact(f"{where} is no index of a compile cache.")
        listed = take(document, "entries", list, where)
        if len(listed) > MAX_ENTRIES:
            raise CorruptArtifact(f"{where} names {len(listed)} entries; the limit is {MAX_ENTRIES}.")
        entries = tuple(Entry.from_json(item, where) for item in listed)
        faults = tuple(item for item in take(document, "faults", list, where) if isinstance(item, dict))
        return Index(take(document, "key", str, where), entries, faults)


def is_module(path: str) -> bool:
    """Is it a relative path `neuronxcc-…/MODULE_…`?"""
    return _MODULE.fullmatch(path) is not None and ".." not in path


def configuration_key(inputs: Mapping[str, Any]) -> str:
    """The key of what decides on the compiled graphs: a fingerprint's inputs without the weights' digests."""
    return hashlib.sha256(
        encode({name: value for name, value in inputs.items() if name != "weights"})
    ).hexdigest()[:40]


class CompileCache:
    """One configuration's part of the cache. `prefix` ends with a slash."""

    def __init__(
        self, objects: Objects, key: str, prefix: str = PREFIX, clock: Callable[[], float] = time.time
    ) -> None:
        if not _PREFIX.fullmatch(prefix) or ".." in prefix:
            raise PermanentError(f"The compile cache's prefix is {prefix!r}: write it as `compile-cache/`.")
        self.objects, self.prefix, self.clock = objects, prefix, clock
        self.key = keys.check_id("cache.key", key)

    @property
    def index_key(self) -> str:
        return f"{self.prefix}{self.key}/index.json"

    @property
    def writer_key(self) -> str:
        return f"{self.prefix}{self.key}/writer.json"

    def blob(self, digest: str) -> str:
        return f"{self.prefix}blobs/{digest[:2]}/{keys.check_digest('digest', digest)}"

    def read(self) -> Index:
        """Empty where there is none. Raises CorruptArtifact."""
        return self._read()[0]

    def has_blob(self, file: FileEntry) -> bool:
        found = self.objects.head_or_none(self.blob(file.sha256))
        return found is not None and found.size == file.size

    def add(self, entries: Iterable[Entry]) -> Index:
        """Lists entries whose blobs are there. Of two of one module the newer stays."""
        added = {entry.module: entry for entry in entries}
        for entry in added.values():
            if entry.fault:
                raise PermanentError(f"{entry.module} may not be shared: {entry.fault}.")
        return self._swap(
            lambda index: replace(
                index,
                entries=(
                    *(entry for entry in index.entries if entry.module not in added),
                    *added.values(),
                ),
            )
        )

    def drop(self, faults: Mapping[str, str]) -> Index:
        """Takes entries out of the index: module -> why. Their damaged blobs are the caller's to delete."""
        now = timestamp(self.clock())
        noted = [{"module": module, "reason": why, "at": now} for module, why in faults.items()]
        return self._swap(
            lambda index: replace(
                index,
                entries=tuple(entry for entry in index.entries if entry.module not in faults),
                faults=(*index.faults, *noted)[-KEPT_FAULTS:],
            )
        )

    def reset(self, why: str) -> None:
        """Replaces an index that cannot be read by an empty one."""
        fault = {"module": "", "reason": why[:500], "at": timestamp(self.clock())}
        self.objects.put(self.index_key, encode(Index(self.key, (), (fault,)).to_json()))

    def _read(self) -> tuple[Index, str]:
        stored = self.objects.get_or_none(self.index_key)
        if stored is None:
            return Index(self.key), ""
        index = Index.from_json(decode(stored.body, self.index_key), self.index_key)
        if index.key != self.key:
            raise CorruptArtifact(f"{self.index_key} is the index of {index.key}.")
        return index, stored.etag

    def _swap(self, change: Callable[[Index], Index]) -> Index:
        for attempt in range(ATTEMPTS):
            index, etag = self._read()
            changed = change(index)
            if changed == index:
                return index
            body = encode(changed.to_json())
            try:
                if etag:
                    self.objects.replace(self.index_key, body, etag)
                else:
                    self.objects.put_new(self.index_key, body)
                return changed
            except Conflict:
                time.sleep(random.uniform(0, 0.02) * 2 ** min(attempt, 6))
        raise Conflict(
            f"{self.index_key} was changed by others {ATTEMPTS} times in a row. Look who writes it."
        )
