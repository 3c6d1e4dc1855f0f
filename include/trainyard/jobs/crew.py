"""Pods that carry one load test together, as they meet in S3. Worker 0 leads: it says when all begin, and
puts together what they measured.

Below the test's own prefix, for one attempt of it:

    crew/<attempt>/ready-<k>.json       worker k's generators stand by
    crew/<attempt>/go.json              {"at": Unix seconds}: the leader wrote it once all were ready
    crew/<attempt>/beat-<k>.json        worker k lives; what it has seen, how many pieces of rows it has sent
    crew/<attempt>/halt.json            the leader's watch has seen enough: all end early
    crew/<attempt>/done-<k>.json        its rows are complete: how many, its generators' readings
    crew/<attempt>/failed-<k>.json      why it gave up: then all give up
    rows/<attempt>/<k>/000001.ndjson.gz its raw rows, sent while the test goes on

Nobody trusts another's clock for a latency. The one moment that crosses machines is `go`: each turns it into
its own monotonic time once. Clocks that differ too much for that are refused.
"""

from __future__ import annotations

import gzip
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from trainyard.bench.crew import TOGETHER_SECONDS, Known, Share
from trainyard.bench.load import Taken
from trainyard.bench.progress import Progress, together
from trainyard.bench.rows import moved
from trainyard.errors import Conflict, StoreUnavailable, TrainyardError, TransientError
from trainyard.jobs.terms import Terms

LOOK_SECONDS = 0.5  # between two looks while we wait for others
PACK_LEVEL = 3  # of rows in passing
SKEW_SECONDS = 1.0  # that clocks of two nodes may differ
LATE_SECONDS = 0.2  # that have to be left before the go

T = TypeVar("T")
log = logging.getLogger("trainyard.jobs")


class MeetingPlace:
    """A `bench.crew.Crew` over S3. Errors are TransientError: the whole test is tried again."""

    def __init__(
        self,
        store: Any,
        prefix: str,
        terms: Terms,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self.terms, self._wall, self._clock = store, terms, wall, clock
        self._signals = f"{prefix}crew/{terms.attempt}/"
        self._rows = f"{prefix}rows/{terms.attempt}/"
        self._waiting = self._looked = clock()
        self._before = wall()  # when we last knew that the leader had not begun
        self._heard: dict[int, tuple[str, float]] = {}
        self._others: dict[int, Progress] = {}
        self._fetched: dict[int, int] = {}
        self._folder: Path | None = None
        self._beats = self._pieces = self._sent = 0
        self._unsent: list[bytes] = []

    @property
    def share(self) -> Share:
        return Share(self.terms.index, self.terms.of)

    @property
    def leads(self) -> bool:
        return self.terms.index == 0

    @property
    def files(self) -> list[Path]:
        if self._folder is None or not self.leads:
            return []
        return [self._folder / f"worker-{k}.ndjson" for k in range(1, self.terms.of)]

    def ready(self, folder: Path) -> None:
        self._waiting, self._before, self._folder = self._clock(), self._wall(), folder
        for path in self.files:
            path.touch()
        if self.terms.of > 1:
            self._say("ready", {"at": self._wall()})

    def go(self) -> float | None:
        if self.terms.of == 1:
            return self._wall() + TOGETHER_SECONDS
        if self._clock() - self._looked < LOOK_SECONDS:
            return None
        asked = self._wall()
        found = self._insist(self._look)
        waited = self._clock() - self._waiting
        if self.leads:
            missing = [k for k in range(self.terms.of) if f"ready-{k}.json" not in found]
            if not missing:
                return self._start()
            if waited > self.terms.ready_seconds:
                raise TransientError(
                    f"{_named(missing)} of the load test did not turn up within "
                    f"{self.terms.ready_seconds:.0f} s; nothing was measured. See whether the pods "
                    f"found a place: kubectl get pods -l trainyard.dev/attempt={self.terms.attempt}"
                )
            return None
        if "go.json" in found:
            said = self._insist(lambda: self._store.get(f"{self._signals}go.json").body)
            return self._checked(float(json.loads(said)["at"]))
        self._before = asked
        if waited > self.terms.ready_seconds + self.terms.silence_seconds:
            raise TransientError(
                f"worker 0 of the load test did not begin within {waited:.0f} s; nothing was measured"
            )
        return None

    def _start(self) -> float:
        at = self._wall() + self.terms.go_seconds
        # Not over an earlier one: two leaders of one attempt would each believe to be the one.
        try:
            self._store.put_new(f"{self._signals}go.json", json.dumps({"at": at}).encode())
        except Conflict as error:
            raise TransientError(
                f"attempt {self.terms.attempt} of the load test was begun by another leader"
            ) from error
        self._heard = {k: ("", self._clock()) for k in range(self.terms.of)}
        return at

    def _checked(self, at: float) -> float:
        now = self._wall()
        left, written = at - now, at - self.terms.go_seconds
        between = self._before - SKEW_SECONDS <= written <= now + SKEW_SECONDS
        if left < LATE_SECONDS or not between:
            raise TransientError(
                f"worker {self.terms.index} of the load test read a start {left:.1f} s away, which was "
                f"{self.terms.go_seconds:.1f} s away when it was written: the clocks of the nodes "
                "differ, or S3 was slow"
            )
        self._heard = {k: ("", self._clock()) for k in range(self.terms.of)}
        return at

    def beat(self, lines: Sequence[bytes], known: Known, began: float) -> Known:
        self._unsent += lines
        halted = known.halted
        try:
            self._send()
            if self.terms.of > 1:
                self._live(known.seen, began)
                found = self._look()
                self._note(found, began)
                if halted and self.leads and "halt.json" not in found:
                    self._store.put(f"{self._signals}halt.json", b"{}")
                halted = halted or "halt.json" in found
        except StoreUnavailable as error:
            if self.terms.of == 1:
                self._unsent = []  # they are on our disk, and nobody else waits for them
            elif self._clock() - self._looked > self.terms.silence_seconds:
                raise  # the others think us lost by now
            log.warning("S3 does not answer, the load test goes on: %s", error)
        return Known(together([known.seen, *self._others.values()]), halted)

    def _live(self, seen: Progress, began: float) -> None:
        self._beats += 1  # no beat is like another: an unchanged object looks like silence
        self._say(
            "beat",
            {"number": self._beats, "began": began, "pieces": self._pieces, "seen": seen.to_dict()},
        )

    def _send(self) -> None:
        if self._unsent:
            body = gzip.compress(b"\n".join(self._unsent) + b"\n", PACK_LEVEL, mtime=0)
            self._store.put(self._piece(self.terms.index, self._pieces + 1), body)
            self._pieces += 1
            self._sent += len(self._unsent)
            self._unsent = []

    def _piece(self, worker: int, number: int) -> str:
        return f"{self._rows}{worker}/{number:06d}.ndjson.gz"

    def _look(self) -> dict[str, str]:
        """Name of every signal and its version. Raises TransientError if somebody gave up."""
        found = {info.key.removeprefix(self._signals): info.etag for info in self._store.list(self._signals)}
        for name in sorted(found):
            if name.startswith("failed-") and name != f"failed-{self.terms.index}.json":
                why = json.loads(self._store.get(f"{self._signals}{name}").body)
                raise TransientError(f"{_named([why['worker']])} of the load test gave up: {why['message']}")
        self._looked = self._clock()
        return found

    def _note(self, found: Mapping[str, str], began: float) -> None:
        """Who lives, and what they have seen. Raises TransientError for whoever does not."""
        lost = []
        for k in range(self.terms.of):
            if k == self.terms.index or f"done-{k}.json" in found:
                continue
            version, since = self._heard.get(k, ("", self._clock()))
            now = found.get(f"beat-{k}.json", "")
            if now != version:
                self._heard[k] = (now, self._clock())
                if self.leads:
                    said = json.loads(self._store.get(f"{self._signals}beat-{k}.json").body)
                    self._others[k] = Progress.from_dict(said["seen"])
                    self._fetch(k, said, began)
            elif self._clock() - since > self.terms.silence_seconds:
                lost.append(k)
        if lost:
            raise TransientError(
                f"{_named(lost)} of the load test said nothing for {self.terms.silence_seconds:.0f} s; what "
                "was measured is not judged"
            )

    def _fetch(self, worker: int, said: Mapping[str, Any], began: float) -> None:
        """The rows that a worker sent since the last time, moved to our clock: both began at the go."""
        ahead = began - float(said["began"])
        with self.files[worker - 1].open("ab") as file:
            while (number := self._fetched.get(worker, 0) + 1) <= int(said["pieces"]):
                lines = gzip.decompress(self._store.get(self._piece(worker, number)).body).splitlines(True)
                file.writelines(moved(line, ahead) for line in lines)
                self._fetched[worker] = number

    def finish(self, taken: Taken) -> None:
        """This worker's rows are complete."""
        self._insist(self._send)
        done = {
            "began": taken.began,
            "rows": self._sent,
            "pieces": self._pieces,
            "readings": list(taken.readings),
            "seen": taken.seen.to_dict(),
        }
        self._insist(partial(self._say, "done", done))

    def gather(self, taken: Taken) -> Taken:
        """What all measured. Waits until the others are done. Raises TransientError if one of them is
        lost."""
        while missing := self._insist(partial(self._missing, taken)):
            log.info("waiting for %s", _named(missing))
            time.sleep(min(self.terms.beat_seconds, LOOK_SECONDS))
        files, readings, seen = list(taken.files), list(taken.readings), [taken.seen]
        for k, path in zip(range(1, self.terms.of), self.files, strict=True):
            done = self._insist(partial(self._done, k, taken.began))
            with path.open("rb") as file:
                rows = sum(1 for _ in file)
            if rows != done["rows"]:
                raise TransientError(
                    f"worker {k} of the load test sent {done['rows']} rows, {rows} arrived; nothing is judged"
                )
            files.append(path)
            readings += done["readings"]
            seen.append(Progress.from_dict(done["seen"]))
        return replace(taken, files=tuple(files), readings=tuple(readings), seen=together(seen))

    def _missing(self, taken: Taken) -> list[int]:
        """Who is not done. The others hear of us meanwhile. Raises TransientError if one of them is lost."""
        found = self._look()
        missing = [k for k in range(1, self.terms.of) if f"done-{k}.json" not in found]
        if missing:
            self._live(taken.seen, taken.began)
            self._note(found, taken.began)
        return missing

    def _done(self, worker: int, began: float) -> dict[str, Any]:
        """What it says at its end; its rows are all in our file then."""
        said: dict[str, Any] = json.loads(self._store.get(f"{self._signals}done-{worker}.json").body)
        self._fetch(worker, said, began)
        return said

    def _insist(self, ask: Callable[[], T]) -> T:
        """S3 may be away for as long as a pod may be silent. What is asked may be asked twice."""
        began = self._clock()
        while True:
            try:
                return ask()
            except StoreUnavailable as error:
                if self._clock() - began > self.terms.silence_seconds:
                    raise
                log.warning("S3 does not answer, asking again: %s", error)
            time.sleep(LOOK_SECONDS)

    def fail(self, error: BaseException) -> None:
        """Tell the others, so that they stop asking the servers. Best effort."""
        if self.terms.of > 1:
            with suppress(TrainyardError):
                words = f"{type(error).__name__}: {error}".rstrip(": ")
                self._say("failed", {"worker": self.terms.index, "message": words})

    def clean(self) -> None:
        """Nothing here is needed once the summary stands. Best effort: old ones go with their release."""
        try:
            for prefix in (self._rows, self._signals):
                for info in self._store.list(prefix):
                    self._store.delete(info.key)
        except TrainyardError as error:
            log.warning("The load test's passing files stay in S3: %s", error)

    def _say(self, what: str, document: Mapping[str, Any]) -> None:
        body = json.dumps(document, separators=(",", ":")).encode()
        self._store.put(f"{self._signals}{what}-{self.terms.index}.json", body)


def _named(workers: Sequence[int]) -> str:
    return f"worker{'s' * (len(workers) > 1)} {', '.join(map(str, workers))}"
