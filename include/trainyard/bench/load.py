"""Runs Locust as a process of its own and gathers what it measured."""

from __future__ import annotations

import importlib.resources
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trainyard
from trainyard.bench.health import judge_generator
from trainyard.bench.samples import Sample, parse
from trainyard.bench.summary import SCHEMA, summarize
from trainyard.bench.workload import Workload
from trainyard.errors import TransientError

START_SECONDS = 30.0  # Locust's own start takes about two on a busy core
LOG_LINES = 15


def run_load(
    *, model: str, arms: Mapping[str, Sequence[str]], workload: Workload, seed: int
) -> tuple[list[Sample], dict[str, Any]]:
    """Ask every arm, pair by pair, and return the samples in order of their start, and their summary.

    Requests that fail are a result, not an error. Raises `TransientError` if the generator itself broke down.
    """
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        home = Path(folder)
        document = {
            "seed": seed,
            "model": model,
            "arms": {arm: list(urls) for arm, urls in arms.items()},
            "workload": asdict(workload),
            "samples": str(home / "samples.ndjson"),
            "generator": str(home / "generator.json"),
        }
        (home / "samples.ndjson").touch()
        (home / "load.json").write_text(json.dumps(document))
        _run_locust(home, workload)
        samples = sorted(parse((home / "samples.ndjson").read_text()), key=lambda sample: sample.started)
        generator = home / "generator.json"
        reading = json.loads(generator.read_text()) if generator.exists() else None
    summary = {
        "schema": SCHEMA,
        "model": model,
        "seed": seed,
        "workload": asdict(workload),
        "addresses": document["arms"],
        "arms": summarize(samples, arms),
        "generator": judge_generator(
            reading, samples, max_lag=workload.max_loop_lag_seconds, max_cpu_share=workload.max_cpu_share
        ),
    }
    return samples, summary


def _run_locust(home: Path, workload: Workload) -> None:
    locustfile = importlib.resources.files("trainyard.bench") / "locustfile.py"
    with importlib.resources.as_file(locustfile) as path:  # a real file even when we run from a zip archive
        command = [
            sys.executable, "-m", "locust", "--locustfile", str(path), "--headless", "--only-summary",
            "--users", str(workload.concurrency), "--spawn-rate", str(workload.concurrency),
            "--stop-timeout", str(math.ceil(workload.drain) + 1), "--loglevel", "WARNING",
            # A failed request is a sample. What is left of the exit code says whether Locust itself ran.
            "--exit-code-on-error", "0",
        ]  # fmt: skip
        limit = START_SECONDS + workload.duration_seconds + workload.drain + 10
        try:
            # Its working folder is empty, so that no stray locust.conf or pyproject.toml changes the run.
            done = subprocess.run(
                command, cwd=home, env=_environment(home), capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired as error:
            raise TransientError(f"the load generator did not end within {limit:.0f} s") from error
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).splitlines()[-LOG_LINES:])
        raise TransientError(f"the load generator broke down, exit code {done.returncode}:\n{tail}")


def _environment(home: Path) -> dict[str, str]:
    """Ours, less what would configure Locust, plus where it finds this package."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOCUST_")}
    root = str(Path(trainyard.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path, "TRAINYARD_LOAD": str(home / "load.json")}
