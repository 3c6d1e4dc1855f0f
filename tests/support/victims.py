"""Processes that fetch or publish until they are killed. Real ones, forked from a server that has imported
everything, because starting Python 200 times takes longer than all that they do."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from typing import Any

PRELOADED = [
    "boto3",
    "huggingface_hub",
    "tests.support.artifacts",
    "trainyard.hub",
    "trainyard.jobs.fetch",
    "trainyard.store.bundles",
    "tests.support.victims",
]
SMALLEST_PART = 5 << 20
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


def start_fetch(environment: Mapping[str, str], job: Mapping[str, Any]) -> ForkServerProcess:
    """The job, as a pod runs it."""
    return _start(_fetch, dict(environment), dict(job))


def start_publish(
    environment: Mapping[str, str], bucket: str, fingerprint: str, attempt: str, seed: int
) -> ForkServerProcess:
    """Stages what a compile of that seed makes, and publishes it."""
    return _start(_publish, dict(environment), bucket, fingerprint, attempt, seed)


def warm_up() -> None:
    """Let the server import everything, which is no part of a victim's life."""
    process = _context.Process(target=os.getpid)
    process.start()
    process.join(60)


def kill(process: ForkServerProcess) -> bool:
    """kill -9. Was it still alive?"""
    if process.pid is None or process.exitcode is not None:
        return False
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    process.join(30)
    return process.exitcode == -signal.SIGKILL


def _start(work: Any, *arguments: Any) -> ForkServerProcess:
    process = _context.Process(target=_run, args=(work, *arguments))
    process.start()
    return process


def _run(work: Any, environment: dict[str, str], *arguments: Any) -> None:
    """Exit code 0, or 75 after an error that Trainyard knows; a traceback and 1 after any other."""
    from trainyard.errors import TrainyardError

    os.environ.update(environment)
    logging.disable(logging.CRITICAL)
    try:
        work(*arguments)
    except TrainyardError:
        os._exit(75)


def _fetch(job: dict[str, Any]) -> None:
    from trainyard.jobs import mirror
    from trainyard.jobs.fetch import run

    mirror.PART_SIZE = SMALLEST_PART
    run(job)


def _publish(bucket: str, fingerprint: str, attempt: str, seed: int) -> None:
    from tests.support.artifacts import INPUTS, PUBLISHED, bundle_files, stage
    from trainyard.store.bundles import publish_bundle
    from trainyard.store.objects import Objects, client

    objects = Objects(client(), bucket)
    prefix = stage(objects, fingerprint, attempt, bundle_files(seed, PUBLISHED))
    publish_bundle(objects, fingerprint, prefix, inputs=INPUTS, engine="optimum", versions={}, target="trn2")
