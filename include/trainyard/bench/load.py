"""Runs Locust, in as many processes as wanted, and gathers what it measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainyard.bench.crew import Alone, Crew, Known, Share, Watch
from trainyard.bench.generator import Generator, Reading
from trainyard.bench.goodput import Limits
from trainyard.bench.health import judge_generator, worst
from trainyard.bench.knee import sweep
from trainyard.bench.progress import Progress
from trainyard.bench.rows import Rows, Tail
from trainyard.bench.samples import Sample
from trainyard.bench.summary import SCHEMA, summarize
from trainyard.bench.workload import Workload
from trainyard.errors import TransientError

START_SECONDS = 120.0  # Locust's own start takes two, and fifteen where others want the same cores
POLL_SECONDS = 0.02
BEAT_SECONDS = 5.0  # between two looks at the rows so far
TELL_SECONDS = 10.0

Say = Callable[[str], object]


@dataclass(frozen=True)
class Taken:
    """What this machine measured. began: on its monotonic clock, as every `started` in `files`. seen: the
    same rows, counted."""

    folder: Path
    files: tuple[Path, ...]
    readings: tuple[Reading, ...]
    began: float
    seen: Progress


def run_load(
    *,
    model: str,
    arms: Mapping[str, Sequence[str]],
    workload: Workload,
    seed: int,
    limits: Limits | None = None,
    stop: Watch | None = None,
    say: Say | None = None,
) -> tuple[list[Sample], dict[str, Any]]:
    """Ask every arm, pair by pair, and return the samples in order of their start, and their summary.
    limits: what goodput is counted under, and what ends a sweep's climb.

    Requests that fail are a result, not an error. say: told every ten seconds how it goes. stop: may end it
    early. Raises `TransientError` if the generator itself broke down.
    """
    with measure(model=model, arms=arms, workload=workload, seed=seed, stop=stop, say=say) as taken:
        samples = list(Rows(taken.files).samples())
    about = Described(model, arms, workload, seed, limits)
    return samples, about.summary(samples, taken.readings)


@contextmanager
def measure(
    *,
    model: str,
    arms: Mapping[str, Sequence[str]],
    workload: Workload,
    seed: int,
    share: Share | None = None,
    crew: Crew | None = None,
    beat_seconds: float = BEAT_SECONDS,
    stop: Watch | None = None,
    say: Say | None = None,
) -> Iterator[Taken]:
    """Runs this machine's share. The rows are on disk, and only as long as the context is open."""
    own, total = (share or Share()).shards(workload)
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        home = Path(folder)
        document = {
            "seed": seed,
            "model": model,
            "arms": {arm: list(urls) for arm, urls in arms.items()},
            "workload": asdict(workload),
            "shards": total,
            "go": str(home / "go"),
            "halt": str(home / "halt"),
        }
        generators = [Generator(home, document, shard, workload) for shard in own]
        run = _Run(generators, home, workload, crew or Alone(), beat_seconds, stop, say)
        try:
            began = run.follow()
        finally:
            for generator in generators:
                generator.kill()
        yield Taken(
            home,
            tuple(generator.rows for generator in generators),
            tuple(generator.reading() for generator in generators),
            began,
            run.seen,
        )


@dataclass(frozen=True)
class Described:
    """What a summary says of the test itself. limits: see `run_load`. workers: machines."""

    model: str
    arms: Mapping[str, Sequence[str]]
    workload: Workload
    seed: int
    limits: Limits | None = None
    workers: int = 1

    def summary(self, samples: Sequence[Sample], readings: Sequence[Reading]) -> dict[str, Any]:
        """readings: of every generator of every machine; the worst counts."""
        workload, limits = self.workload, self.limits
        return {
            "schema": SCHEMA,
            "model": self.model,
            "seed": self.seed,
            "workload": asdict(workload),
            "workers": self.workers,
            "addresses": {arm: list(urls) for arm, urls in self.arms.items()},
            "arms": summarize(samples, self.arms, limits),
            "sweep": sweep(
                samples,
                self.arms,
                workload.schedule,
                seed=self.seed,
                limit=limits.ttft if limits is not None else None,
            ),
            "generator": judge_generator(
                worst(readings),
                samples,
                max_lag=workload.max_loop_lag_seconds,
                max_cpu_share=workload.max_cpu_share,
            ),
        }


class _Run:
    """The processes of this machine, from their start to their end."""

    def __init__(
        self,
        generators: Sequence[Generator],
        home: Path,
        workload: Workload,
        crew: Crew,
        beat_seconds: float,
        stop: Watch | None,
        say: Say | None,
    ) -> None:
        self.seen = Progress()
        self._beat_seconds = beat_seconds
        self._generators, self._home, self._crew = generators, home, crew
        self._stop, self._say, self._halt = stop, say, home / "halt"
        self._limit = workload.seconds + workload.drain + START_SECONDS
        self._tails = [Tail(generator.rows) for generator in generators]
        self._told = 0.0

    def follow(self) -> float:
        """Until all of them have ended; returns when they began. Raises TransientError if one breaks down or
        takes too long."""
        began = self._begin()
        self._told = began
        if self._stop:
            files = [*(generator.rows for generator in self._generators), *self._crew.files]
            self._stop.follow(files, self._halt, began)
        try:
            self._until_end(began)
        finally:
            if self._stop:
                self._stop.end()
        while self._beat(began):
            pass
        return began

    def _until_end(self, began: float) -> None:
        beaten, deadline, halted = time.monotonic(), began + self._limit, False
        while self._running():
            if (now := time.monotonic()) > deadline:
                raise TransientError(f"the load generator did not end within {self._limit:.0f} s")
            # Word of an early end goes round at once.
            if now - beaten >= self._beat_seconds or halted != self._halt.exists():
                beaten, halted = now, self._halt.exists()
                self._beat(began)
            time.sleep(POLL_SECONDS)

    def _begin(self) -> float:
        announced, deadline = False, time.monotonic() + START_SECONDS
        while True:
            if not self._running():
                raise TransientError(f"the load generator ended at once:\n{self._generators[0].words()}")
            if all(generator.ready for generator in self._generators):
                if not announced:
                    self._crew.ready(self._home)
                    announced = True
                at = self._crew.go()
                if at is not None:
                    began = time.monotonic() + at - time.time()  # once: then the wall clock may be set
                    written = self._home / "go.tmp"
                    written.write_text(str(began))
                    written.rename(self._home / "go")
                    return began
            elif time.monotonic() > deadline:
                raise TransientError(
                    f"the load generator was not ready after {START_SECONDS:.0f} s:\n"
                    f"{self._generators[0].words()}"
                )
            time.sleep(POLL_SECONDS)

    def _running(self) -> bool:
        """Raises TransientError if one broke down."""
        codes = [generator.process.poll() for generator in self._generators]
        for generator, code in zip(self._generators, codes, strict=True):
            if code:
                raise TransientError(f"the load generator broke down, exit code {code}:\n{generator.words()}")
        return None in codes

    def _beat(self, began: float) -> bool:
        """Whether there was anything new."""
        lines = [line for tail in self._tails for line in tail.lines()]
        self.seen.count(lines)
        known = self._crew.beat(lines, Known(self.seen, self._halt.exists()), began)
        if known.halted:
            self._halt.touch()
        now = time.monotonic()
        if self._say and now - self._told >= TELL_SECONDS:
            self._told = now
            self._say(f"{now - began:.0f} s: {known.seen.words()}")
        return bool(lines)
