"""Several transfers at once: the first failure, or a signal, stops the others soon."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
# After a failure the others get this long to clean up (abort uploads, remove temporary files). Less than the
# 30 s that Kubernetes gives a pod: a thread that hangs in a read must not keep the process from leaving.
GRACE_SECONDS = 3.0


class Cancelled(Exception):
    """Another transfer failed, or the process was told to stop."""


class Stop:
    """Tells transfers under way to end. They ask with every piece that they move."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raises Cancelled once `set` was called."""
        if self._event.is_set():
            raise Cancelled


def run_all(tasks: Iterable[Callable[[], T]], workers: int, stop: Stop) -> list[T]:
    """Results in the tasks' order. The first failure is raised, once the others ended or had their grace."""
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="transfer")
    futures = [pool.submit(task) for task in tasks]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.done() and isinstance(future.exception(), Cancelled) for future in futures):
            # Whoever failed told the others first, and is about to say why.
            wait(futures, timeout=GRACE_SECONDS)
        failures = [future.exception() for future in futures if future.done()]
        for failure in failures:
            if failure is not None and not isinstance(failure, Cancelled):
                raise failure
        return [future.result() for future in futures]
    except BaseException:
        stop.set()
        for future in futures:
            future.cancel()
        wait(futures, timeout=GRACE_SECONDS)
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
