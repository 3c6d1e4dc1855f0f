"""Runs Locust, in as many processes as wanted, and gathers what it measured."""

from __future__ import annotations

import importlib.resources
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import trainyard
from trainyard.bench.goodput import Limits
from trainyard.bench.health import judge_generator, worst
from trainyard.bench.knee import sweep
from trainyard.bench.progress import Progress
from trainyard.bench.rows import Part, Rows, Tail
from trainyard.bench.samples import Sample
from trainyard.bench.summary import SCHEMA, summarize
from trainyard.bench.workload import Workload
from trainyard.errors import Problem, Refused, TransientError

START_SECONDS = 30.0  # Locust's own start takes about two on a busy core
LOG_LINES = 15
TOGETHER_SECONDS = 0.3  # until all processes have read when to begin
POLL_SECONDS = 0.02
BEAT_SECONDS = 5.0  # between two looks at the rows so far
TELL_SECONDS = 10.0

Reading = dict[str, float] | None
Say = Callable[[str], object]


@dataclass(frozen=True)
class Share:
    """Of a load test that several machines carry: the number of this one, from 0, and how many there are."""

    index: int = 0
    of: int = 1

    def shards(self, workload: Workload) -> tuple[range, int]:
        """Our processes, and how many all machines run. Raises Refused where nothing is left for us."""
        total = workload.processes * self.of
        if workload.arrivals is None:
            total = min(total, workload.concurrency)
        own = range(self.index, total, self.of)
        if not own:
            rule = f"has no user for machine {self.index} of {self.of}"
            raise Refused(Problem("workload.concurrency", total, rule, "Use fewer machines, or more users"))
        return own, total


class Crew(Protocol):
    """Those who carry a load test together. Every call may raise TransientError: somebody is missing."""

    def ready(self) -> None:
        """Our generators stand by."""

    def go(self) -> float | None:
        """Unix seconds when all begin, once it is agreed upon. Asked again and again."""

    def beat(self, lines: Sequence[bytes], seen: Progress) -> Progress:
        """Takes the rows since the last beat, and all that we saw; returns what all of us saw."""


class Alone:
    """One machine."""

    def ready(self) -> None:
        pass

    def go(self) -> float | None:
        return time.time() + TOGETHER_SECONDS

    def beat(self, lines: Sequence[bytes], seen: Progress) -> Progress:
        return seen


@dataclass(frozen=True)
class Taken:
    """What this machine measured. began: on its monotonic clock, as every `started` in `parts`."""

    folder: Path
    parts: tuple[Part, ...]
    readings: tuple[Reading, ...]
    began: float


def run_load(
    *,
    model: str,
    arms: Mapping[str, Sequence[str]],
    workload: Workload,
    seed: int,
    limits: Limits | None = None,
    say: Say | None = None,
) -> tuple[list[Sample], dict[str, Any]]:
    """Ask every arm, pair by pair, and return the samples in order of their start, and their summary.
    limits: what goodput is counted under, and what ends a sweep's climb.

    Requests that fail are a result, not an error. say: told every ten seconds how it goes. Raises
    `TransientError` if the generator itself broke down.
    """
    with measure(model=model, arms=arms, workload=workload, seed=seed, say=say) as taken:
        samples = list(Rows(taken.parts).samples())
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
        }
        generators = [Generator(home, document, shard, workload) for shard in own]
        try:
            began = _Run(generators, home, workload, crew or Alone(), say).follow()
        finally:
            for generator in generators:
                generator.kill()
        yield Taken(
            home,
            tuple(Part(generator.rows) for generator in generators),
            tuple(generator.reading() for generator in generators),
            began,
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


class Generator:
    """One Locust process, and the files that it leaves."""

    def __init__(self, home: Path, document: Mapping[str, Any], shard: int, workload: Workload) -> None:
        self._home, self._shard = home, shard
        self.rows = home / f"samples-{shard}.ndjson"
        self._reading = home / f"generator-{shard}.json"
        self.rows.touch()
        own = {"shard": shard, "samples": str(self.rows), "generator": str(self._reading)}
        described = home / f"load-{shard}.json"
        described.write_text(json.dumps({**document, **own}))
        self._log = (home / f"log-{shard}").open("w+")
        # A copy, because we may run from a zip archive. The folder is empty but for our files, so that no
        # stray locust.conf or pyproject.toml changes the run.
        locustfile = home / "locustfile.py"
        locustfile.write_bytes((importlib.resources.files("trainyard.bench") / "locustfile.py").read_bytes())
        self.process = subprocess.Popen(
            _command(locustfile, workload, shard, document["shards"]),
            cwd=home,
            env=_environment(described),
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def ready(self) -> bool:
        return (self._home / f"ready-{self._shard}").exists()

    def reading(self) -> Reading:
        return json.loads(self._reading.read_text()) if self._reading.exists() else None

    def words(self) -> str:
        """Its last ones."""
        self._log.seek(0)
        return "\n".join(self._log.read().splitlines()[-LOG_LINES:])

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()


def _command(locustfile: Path, workload: Workload, shard: int, shards: int) -> list[str]:
    users = 1
    if workload.arrivals is None:
        users = workload.concurrency // shards + (shard < workload.concurrency % shards)
    return [
        sys.executable, "-m", "locust", "--locustfile", str(locustfile), "--headless", "--only-summary",
        "--users", str(users), "--spawn-rate", str(users),
        "--stop-timeout", str(math.ceil(workload.drain) + 1), "--loglevel", "WARNING",
        # A failed request is a sample. What is left of the exit code says whether Locust itself ran.
        "--exit-code-on-error", "0",
        "Asker" if workload.arrivals is None else "Scheduler",
    ]  # fmt: skip


class _Run:
    """The processes of this machine, from their start to their end."""

    def __init__(
        self, generators: Sequence[Generator], home: Path, workload: Workload, crew: Crew, say: Say | None
    ) -> None:
        self._generators, self._home, self._crew, self._say = generators, home, crew, say
        self._limit = workload.seconds + workload.drain + START_SECONDS
        self._tails = [Tail(generator.rows) for generator in generators]
        self._seen = Progress()
        self._told = 0.0

    def follow(self) -> float:
        """Until all of them have ended; returns when they began. Raises TransientError if one breaks down or
        takes too long."""
        began = self._begin()
        self._told = began
        beaten, deadline = time.monotonic(), began + self._limit
        while self._running():
            if (now := time.monotonic()) > deadline:
                raise TransientError(f"the load generator did not end within {self._limit:.0f} s")
            if now - beaten >= BEAT_SECONDS:
                beaten = now
                self._beat(began)
            time.sleep(POLL_SECONDS)
        while self._beat(began):
            pass
        return began

    def _begin(self) -> float:
        announced, deadline = False, time.monotonic() + START_SECONDS
        while True:
            if not self._running():
                raise TransientError(f"the load generator ended at once:\n{self._generators[0].words()}")
            if all(generator.ready for generator in self._generators):
                if not announced:
                    self._crew.ready()
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
        self._seen.count(lines)
        together = self._crew.beat(lines, self._seen)
        now = time.monotonic()
        if self._say and now - self._told >= TELL_SECONDS:
            self._told = now
            self._say(f"{now - began:.0f} s: {together.words()}")
        return bool(lines)


def _environment(described: Path) -> dict[str, str]:
    """Ours, less what would configure Locust, plus where it finds this package."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOCUST_")}
    root = str(Path(trainyard.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path, "TRAINYARD_LOAD": str(described)}
