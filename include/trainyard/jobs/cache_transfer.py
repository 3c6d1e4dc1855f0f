"""Entries of the compile cache, down from S3 and up to it: verified by digest, whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainyard.errors import CorruptArtifact, NotFound, PermanentError, TrainyardError
from trainyard.jobs import cache_hygiene
from trainyard.store import transfer
from trainyard.store.compile_cache import CompileCache, Entry, Index
from trainyard.store.documents import timestamp
from trainyard.store.manifests import FileEntry
from trainyard.store.parallel import Stop, run_all

PARALLEL = 4
# What comes down or goes up for one configuration.
MOST_BYTES = 64 << 30
SPARE_BYTES = 1 << 30
COMING = ".coming-"
log = logging.getLogger(__name__)


@dataclass
class CacheReport:
    """brought, kept: entries from and to S3; poisoned: failed ones removed here; broken: unfinished ones;
    corrupt: ones in S3 that were no good; took_over: the writer that had died."""

    brought: int = 0
    kept: int = 0
    poisoned: int = 0
    broken: int = 0
    stale_locks: int = 0
    corrupt: int = 0
    waited_seconds: float = 0.0
    waited_for: str = ""
    took_over: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def bring(cache: CompileCache, folder: Path, compiler: str, report: CacheReport) -> bool:
    """Bring down what the index names. True: there is something, and nothing of it is missing.

    compiler: only entries of this version. What is no good is taken out of the index. Never raises for what
    S3 or the disk do.
    """
    try:
        index = _index(cache, report)
        wanted = [entry for entry in index.entries if entry.module.startswith(f"neuronxcc-{compiler}")]
        good = [entry for entry in wanted if not entry.fault]
        size, free = sum(entry.size for entry in good), shutil.disk_usage(folder).free - SPARE_BYTES
        if size > min(MOST_BYTES, free):
            log.warning("compile cache: %d bytes are too many for here (%d are free)", size, free)
            return False
        stop = Stop()
        came = run_all([partial(_bring_one, cache, folder, entry, stop) for entry in good], PARALLEL, stop)
        new = sum(why == "new" for why in came)
        report.brought += new
        if new:
            log.info("compile cache: %d entries of %s came from S3", new, cache.key)
        faults = {entry.module: entry.fault for entry in wanted if entry.fault}
        faults |= {e.module: why for e, why in zip(good, came, strict=True) if why not in ("new", "there")}
        if faults:
            for module, why in faults.items():
                log.warning("compile cache: dropping %s: %s", module, why)
            report.corrupt += len(faults)
            cache.drop(faults)
        return bool(good) and not faults
    except (TrainyardError, OSError) as error:
        log.warning("compile cache: nothing comes from S3: %s", error)
        return False


def upload(cache: CompileCache, found: Iterable[Path], holder: str) -> list[Entry]:
    """Send complete entries, contents by digest. They are listed by nobody yet. Raises TrainyardError."""
    listed = [(entry, path) for entry in found for path in _files(entry)]
    if sum(path.stat().st_size for _, path in listed) > MOST_BYTES:
        raise PermanentError(f"The new entries have more than {MOST_BYTES} bytes.")
    stop = Stop()
    sent = run_all([partial(_send, cache, entry, path, stop) for entry, path in listed], PARALLEL, stop)
    by_entry: dict[Path, list[FileEntry]] = {}
    for entry, file in sent:
        by_entry.setdefault(entry, []).append(file)
    now = timestamp(cache.clock())
    return [
        Entry(cache_hygiene.module_of(entry), tuple(sorted(files)), holder, now)
        for entry, files in by_entry.items()
    ]


def _index(cache: CompileCache, report: CacheReport) -> Index:
    try:
        return cache.read()
    except CorruptArtifact as error:
        log.warning("compile cache: the index is damaged: %s", error)
        report.corrupt += 1
        cache.reset(str(error))
        return Index(cache.key)


def _bring_one(cache: CompileCache, folder: Path, entry: Entry, stop: Stop) -> str:
    """`new`, `there`, or why the entry in S3 is no good."""
    target = folder / entry.module
    if cache_hygiene.is_complete(target) or list(target.glob("*.lock")):
        return "there"
    coming = folder / f"{COMING}{uuid.uuid4().hex[:8]}"
    try:
        for file in entry.files:
            stop.check()
            _download(cache, file, coming / file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        os.replace(coming, target)
    except (CorruptArtifact, NotFound) as error:
        return str(error)
    finally:
        shutil.rmtree(coming, ignore_errors=True)
    return "new"


def _download(cache: CompileCache, file: FileEntry, target: Path) -> None:
    """Raises CorruptArtifact, once the damaged blob is deleted: else the next upload would spare itself."""
    for attempt in (1, 2):
        try:
            transfer.download(
                cache.objects, cache.blob(file.sha256), target, size=file.size, sha256=file.sha256
            )
            return
        except CorruptArtifact:
            # Once may have happened on the way; twice is how it lies there.
            if attempt == 2:
                cache.objects.delete(cache.blob(file.sha256))
                raise


def _send(cache: CompileCache, entry: Path, path: Path, stop: Stop) -> tuple[Path, FileEntry]:
    stop.check()
    file = FileEntry(path.name, path.stat().st_size, _digest(path))
    if not cache.has_blob(file):
        sent = transfer.upload_file(cache.objects, path, cache.blob(file.sha256))
        if sent.sha256 != file.sha256:
            cache.objects.delete(cache.blob(file.sha256))
            raise CorruptArtifact(f"{path} changed while it was uploaded.")
    return entry, file


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _files(entry: Path) -> list[Path]:
    """What belongs to a complete entry: its plain files, without locks, logs and temporary ones."""
    found = [
        path
        for path in sorted(entry.iterdir())
        if path.is_file()
        and not path.is_symlink()
        and not path.name.startswith(".")
        and path.suffix not in (".lock", ".log")
    ]
    return found[: cache_hygiene.MOST_FILES]
