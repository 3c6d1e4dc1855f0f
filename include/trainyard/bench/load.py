"""Runs Locust as a process of its own and gathers what it measured."""

from __future__ import annotations

import importlib.resources
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trainyard
from trainyard.bench.goodput import Limits
from trainyard.bench.health import judge_generator, worst
from trainyard.bench.knee import sweep
from trainyard.bench.samples import Sample, parse
from trainyard.bench.summary import SCHEMA, summarize
from trainyard.bench.workload import Workload
from trainyard.errors import TransientError

START_SECONDS = 30.0  # Locust's own start takes about two on a busy core
LOG_LINES = 15
TOGETHER_SECONDS = 0.3  # until all processes have read when to begin
POLL_SECONDS = 0.02


def run_load(
    *,
    model: str,
    arms: Mapping[str, Sequence[str]],
    workload: Workload,
    seed: int,
    limits: Limits | None = None,
) -> tuple[list[Sample], dict[str, Any]]:
    """Ask every arm, pair by pair, and return the samples in order of their start, and their summary.
    limits: what goodput is counted under, and what ends a sweep's climb.

    Requests that fail are a result, not an error. Raises `TransientError` if the generator itself broke down.
    """
    open_loop = workload.arrivals is not None
    shards = workload.processes if open_loop else min(workload.processes, workload.concurrency)
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        home = Path(folder)
        document = {
            "seed": seed,
            "model": model,
            "arms": {arm: list(urls) for arm, urls in arms.items()},
            "workload": asdict(workload),
            "shards": shards,
            "go": str(home / "go") if shards > 1 and open_loop else None,
        }
        generators = [Generator(home, document, shard, workload) for shard in range(shards)]
        try:
            _wait(generators, home, START_SECONDS + workload.seconds + workload.drain + 10)
        finally:
            for generator in generators:
                generator.kill()
        samples = sorted(
            (sample for generator in generators for sample in generator.samples()),
            key=lambda sample: sample.started,
        )
        reading = worst([generator.reading() for generator in generators])
    summary = {
        "schema": SCHEMA,
        "model": model,
        "seed": seed,
        "workload": asdict(workload),
        "addresses": {arm: list(urls) for arm, urls in arms.items()},
        "arms": summarize(samples, arms, limits),
        "sweep": sweep(
            samples, arms, workload.schedule, seed=seed, limit=limits.ttft if limits is not None else None
        ),
        "generator": judge_generator(
            reading, samples, max_lag=workload.max_loop_lag_seconds, max_cpu_share=workload.max_cpu_share
        ),
    }
    return samples, summary


class Generator:
    """One Locust process, and the files that it leaves."""

    def __init__(self, home: Path, document: Mapping[str, Any], shard: int, workload: Workload) -> None:
        self._home, self._shard = home, shard
        self._samples = home / f"samples-{shard}.ndjson"
        self._reading = home / f"generator-{shard}.json"
        self._samples.touch()
        own = {"shard": shard, "samples": str(self._samples), "generator": str(self._reading)}
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

    def samples(self) -> Iterator[Sample]:
        return parse(self._samples.read_text())

    def reading(self) -> dict[str, float] | None:
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


def _wait(generators: Sequence[Generator], home: Path, limit: float) -> None:
    """Until all of them have ended. Raises TransientError if one breaks down or takes too long."""
    go, deadline = home / "go", time.monotonic() + limit
    while True:
        codes = [generator.process.poll() for generator in generators]
        for generator, code in zip(generators, codes, strict=True):
            if code:
                raise TransientError(f"the load generator broke down, exit code {code}:\n{generator.words()}")
        if all(code == 0 for code in codes):
            return
        if time.monotonic() > deadline:
            raise TransientError(f"the load generator did not end within {limit:.0f} s")
        if not go.exists() and all(generator.ready for generator in generators):
            written = home / "go.tmp"
            written.write_text(str(time.monotonic() + TOGETHER_SECONDS))
            written.rename(go)
        time.sleep(POLL_SECONDS)


def _environment(described: Path) -> dict[str, str]:
    """Ours, less what would configure Locust, plus where it finds this package."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOCUST_")}
    root = str(Path(trainyard.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path, "TRAINYARD_LOAD": str(described)}
