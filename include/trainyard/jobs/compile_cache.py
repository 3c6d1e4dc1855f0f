"""The compile cache around one compile: what S3 has comes down, one pod writes a key, what is new goes up.

Nothing here can fail a compile: without the cache it takes longer, and that is all. What was found and done
is counted in `CacheReport`.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.errors import LeaseHeld, PermanentError, TrainyardError
from trainyard.jobs import cache_hygiene, cache_transfer
from trainyard.jobs.cache_transfer import CacheReport
from trainyard.jobs.runtime import field
from trainyard.store.compile_cache import PREFIX, CompileCache
from trainyard.store.objects import Objects
from trainyard.store.writers import Heartbeat, WriterLease

LEASE_SECONDS = 60.0
WAIT_SECONDS = 3600.0
RETRY_SECONDS = 300.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The job's field `cache`.

    kind: `neuronx` (libneuronxla's folder), `vllm` (the output itself is the cache) or `none`; dir: its
    folder; key: the configuration's, None keeps S3 out of it; compiler: its version, only entries of it come
    down; shared: other pods may use the folder, too (a volume).
    """

    kind: str
    dir: Path | None
    key: str | None
    prefix: str
    compiler: str
    shared: bool
    lease_seconds: float
    wait_seconds: float


def options_of(job: Mapping[str, Any]) -> Options:
    """Raises PermanentError. A job of before has `cache_dir` only: a folder without S3."""
    given = field(job, "cache", dict, None)
    if given is None:
        old = field(job, "cache_dir", str, None)
        given = {"kind": "neuronx", "dir": old} if old else {"kind": "none"}
    kind = field(given, "kind", str)
    if kind not in ("neuronx", "vllm", "none"):
        raise PermanentError(f"TRAINYARD_JOB: cache.kind is {kind!r}, not neuronx, vllm or none.")
    folder, key = field(given, "dir", str, None), field(given, "key", str, None)
    if kind == "neuronx" and folder is None:
        raise PermanentError("TRAINYARD_JOB: a cache of kind neuronx needs `dir`.")
    place = Path(folder) if folder and kind == "neuronx" else None
    # A folder a key: what lies there is of this configuration, and whose lease it is may clean it.
    return Options(
        kind=kind,
        dir=place / key[:16] if place and key else place,
        key=key if kind == "neuronx" else None,
        prefix=field(given, "prefix", str, PREFIX),
        compiler=field(given, "compiler", str, ""),
        shared=field(given, "shared", bool, False),
        lease_seconds=float(field(given, "lease_seconds", (int, float), LEASE_SECONDS)),
        wait_seconds=float(field(given, "wait_seconds", (int, float), WAIT_SECONDS)),
    )


class Session:
    """One compile's use of the cache. `poll` is called while it waits for another pod; what that raises ends
    the waiting."""

    def __init__(
        self, objects: Objects, options: Options, holder: str, poll: Callable[[], None] = lambda: None
    ) -> None:
        self.options, self.holder, self.poll = options, holder, poll
        self.report = CacheReport()
        self.cache = (
            CompileCache(objects, options.key, options.prefix) if options.dir and options.key else None
        )
        self._heartbeat: Heartbeat | None = None

    @contextmanager
    def open(self) -> Iterator[CacheReport]:
        """Everything before the compile; afterwards the lease is given back, however the block ends.

        Raises LeaseHeld if another pod still compiles this configuration after `wait_seconds`.
        """
        folder = self.options.dir
        if folder is None:
            yield self.report
            return
        folder.mkdir(parents=True, exist_ok=True)
        if self.cache is None:
            self._clean(folder, alone=not self.options.shared)
            yield self.report
            return
        if not self.options.shared:
            self._clean(folder, alone=True)
            if self._bring():
                # Everything is here: nothing to write, so nobody has to wait for us.
                yield self.report
                return
        with self._holding() as lease:
            self._clean(folder, alone=lease is not None or not self.options.shared)
            if self._bring() and not self.options.shared and lease:
                # Another pod compiled it while we waited: the next one need not wait for us.
                _give_back(lease)
                self._heartbeat = None
            yield self.report

    def keep(self) -> None:
        """After a good compile: new complete entries go to S3. Failures are said, not raised."""
        folder, cache = self.options.dir, self.cache
        if cache is None or folder is None:
            return
        try:
            known = {entry.module for entry in cache.read().entries}
            found = cache_hygiene.survey(folder).complete
            new = [entry for entry in found if cache_hygiene.module_of(entry) not in known]
            if not new:
                return
            with self._writing() as allowed:
                if not allowed:
                    log.warning("compile cache: another pod writes %s now; nothing is kept", cache.key)
                    return
                entries = cache_transfer.upload(cache, new, self.holder)
                cache.add(entries)
            self.report.kept = len(entries)
            log.info("compile cache: kept %d entries of %s in S3", len(entries), cache.key)
        except (TrainyardError, OSError) as error:
            log.warning("compile cache: what was compiled is not kept: %s", error)

    @property
    def has_lost_the_key(self) -> bool:
        """Another pod took it over while this one compiled."""
        return self._heartbeat is not None and not self._heartbeat.lease.is_held

    @contextmanager
    def _writing(self) -> Iterator[bool]:
        """A reader that compiled something after all becomes the writer, if nobody else is."""
        if self._heartbeat is not None:
            yield not self.has_lost_the_key
            return
        lease = self._new_lease()
        if not lease.acquire():
            yield False
            return
        try:
            with Heartbeat(lease):
                yield True
        finally:
            _give_back(lease)

    def _new_lease(self) -> WriterLease:
        assert self.cache is not None
        return WriterLease(self.cache.objects, self.cache.writer_key, self.holder, self.options.lease_seconds)

    @contextmanager
    def _holding(self) -> Iterator[WriterLease | None]:
        """With the key's lease; without one where S3 does not give it, since a compile is worth more."""
        lease = self._new_lease()
        try:
            self._await(lease)
        except LeaseHeld:
            raise
        except TrainyardError as error:
            log.warning("compile cache: no lease of %s (%s); compiling without", lease.key, error)
            yield None
            return
        self._heartbeat = Heartbeat(lease)
        try:
            with self._heartbeat:
                yield lease
        finally:
            self._heartbeat = None
            _give_back(lease)

    def _await(self, lease: WriterLease) -> None:
        began = said = time.monotonic()
        told = False
        while not lease.acquire():
            now = time.monotonic()
            who = lease.other.holder if lease.other else "another pod"
            if not told or now - said >= 60:
                told, said = True, now
                log.info(
                    "compile cache: %s compiles this configuration; waiting for it (%.0f s)", who, now - began
                )
            self.report.waited_for = who
            if now - began >= self.options.wait_seconds:
                raise LeaseHeld(
                    f"{who} still compiles what {lease.key} guards, after {now - began:.0f} s of waiting.",
                    retry_after=RETRY_SECONDS,
                )
            self.poll()
            time.sleep(min(5.0, self.options.lease_seconds / 12))
        self.report.waited_seconds = round(time.monotonic() - began, 3) if told else 0.0
        if lease.took_over:
            self.report.took_over = lease.took_over
            log.warning("compile cache: %s died while it compiled; taking over", lease.took_over)

    def _clean(self, folder: Path, *, alone: bool) -> None:
        cleaned = cache_hygiene.clean(folder, alone=alone)
        if alone:
            for left in folder.glob(f"{cache_transfer.COMING}*"):
                shutil.rmtree(left, ignore_errors=True)
        self.report.poisoned += cleaned.poisoned
        self.report.broken += cleaned.broken
        self.report.stale_locks += cleaned.locks

    def _bring(self) -> bool:
        assert self.cache is not None
        assert self.options.dir is not None
        return cache_transfer.bring(self.cache, self.options.dir, self.options.compiler, self.report)


def _give_back(lease: WriterLease) -> None:
    """Bounded: a store that hangs must not keep a pod that is told to stop. The lease then runs out."""

    def release() -> None:
        with suppress(TrainyardError):
            lease.release()

    thread = threading.Thread(target=release, name="give-back", daemon=True)
    thread.start()
    thread.join(timeout=5.0)
