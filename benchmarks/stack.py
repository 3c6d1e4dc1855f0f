"""A local stack for benchmarks that need one: of their own, or one that runs already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.model import NotMeasured, Options
from trainyard_cli.airflow_api import ENDED, Airflow, ApiError

DAGS = "benchmarks/dags"


@contextmanager
def airflow(options: Options, only: Sequence[str]) -> Iterator[Airflow]:
    """A session with the Airflow of a stack that has our DAGs and those of the benchmarks.

    only: parts of the stack that are needed. A stack that runs already (`options.home`) is used as it is and
    left running. Raises NotMeasured.
    """
    if options.home is not None:
        yield _session(options.home)
        return
    home = options.scratch / "stack"
    options.say("starting a local stack")
    try:
        _supervise(options, "up", "--home", str(home), "--only", ",".join(only), "--dags", DAGS)
        yield _session(home)
    finally:
        _supervise(options, "down", "--home", str(home), "--wipe", check=False)


@dataclass(frozen=True)
class Timed:
    """One run of a DAG, in seconds. took: from its start to its end, as Airflow saw them. tasks: each task's
    own time, from the start of its process to its end."""

    took: float
    tasks: tuple[float, ...]


def timed_run(session: Airflow, dag_id: str, conf: dict[str, Any], timeout: float = 300) -> Timed:
    """Raises NotMeasured, also where a task did not succeed."""
    try:
        session.wait_for_dag(dag_id, 90)
        run_id = session.trigger(dag_id, f"bench-{time.time_ns()}", conf).run_id
        deadline = time.monotonic() + timeout
        # Few looks: the API server shares the machine with what is measured.
        while (run := session.run(dag_id, run_id)).state not in ENDED:
            if time.monotonic() > deadline:
                raise NotMeasured(f"run {run_id} of {dag_id} did not end in {timeout:.0f} s")
            time.sleep(1)
        tasks = session.tasks(dag_id, run_id)
    except (ApiError, TimeoutError, httpx.HTTPError) as error:
        raise NotMeasured(f"{dag_id}: {error}") from error
    if wrong := [task["task_id"] for task in tasks if task["state"] != "success"]:
        raise NotMeasured(f"run {run_id} of {dag_id}: tasks that did not succeed: {', '.join(wrong)}")
    return Timed(_moment(run.ended) - _moment(run.started), tuple(task["duration"] for task in tasks))


def _session(home: Path) -> Airflow:
    try:
        found = json.loads((home / "airflow-credentials.json").read_text())
    except OSError as error:
        raise NotMeasured(
            f"{home} is no home of a running stack ({error.strerror}): start it first"
        ) from error
    return Airflow(found["url"], found["username"], found["password"])


def _supervise(options: Options, *words: str, check: bool = True) -> None:
    command = [sys.executable, "-m", "local.stack", *words]
    paths = (options.repository, options.repository / "include", options.repository / "plugins")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(command, cwd=options.repository, env=environment, capture_output=True, text=True)
    if check and done.returncode:
        raise NotMeasured(f"the local stack did not start: {(done.stdout + done.stderr)[-800:]}")


def _moment(text: str | None) -> float:
    if text is None:
        raise NotMeasured("Airflow does not say when a run began and ended that it calls ended")
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
