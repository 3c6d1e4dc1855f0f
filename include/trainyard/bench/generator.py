"""One Locust process of a load test."""

from __future__ import annotations

import importlib.resources
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trainyard
from trainyard.bench.workload import Workload

LOG_LINES = 15

Reading = dict[str, float] | None


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
            env=environment(described),
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


def environment(described: Path) -> dict[str, str]:
    """Ours, less what would configure Locust, plus where it finds this package."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOCUST_")}
    root = str(Path(trainyard.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path, "TRAINYARD_LOAD": str(described)}
