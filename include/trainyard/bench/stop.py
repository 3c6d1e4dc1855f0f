"""Ends a load test as soon as somebody who looks at its samples has seen enough."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainyard.bench.samples import Sample, parse

LOOK_SECONDS = 2.0
MOST_OF_A_CORE = 0.1  # looks become rarer where they take longer
NICE = 10

# Told the samples that are new; says why the test has to end, or None. At least {"reasons": [text, ...]}.
Look = Callable[[Sequence[Sample]], Mapping[str, Any] | None]
log = logging.getLogger("trainyard.bench")


class EarlyStop:
    """Reads what the generators write, in a thread that gives way to them.

    found: why the test was ended, and `at`, seconds after its begin; None while it was not.
    """

    def __init__(self, look: Look, every: float = LOOK_SECONDS) -> None:
        self._look, self._every = look, every
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._cpu, self._looks = 0.0, 0
        self.found: dict[str, Any] | None = None

    def follow(self, files: Sequence[Path], halt: Path, began: float) -> None:
        """halt: the file that tells the generators to end, made on an alarm. began: monotonic seconds."""
        self._thread = threading.Thread(
            target=self._run, args=(files, halt, began), name="watch", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def cost(self) -> dict[str, float]:
        """looks, and the seconds of a core that they took."""
        return {"looks": self._looks, "cpu_seconds": round(self._cpu, 3)}

    def _run(self, files: Sequence[Path], halt: Path, began: float) -> None:
        with contextlib.suppress(OSError, AttributeError):  # Linux knows a niceness for each thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        pause, places = self._every, [0] * len(files)
        while not self._over.wait(pause):
            before = time.thread_time()
            try:
                told = self._look(
                    [sample for number in range(len(files)) for sample in _new(files, places, number)]
                )
            except Exception:  # a watch that breaks down must not end the test: the judge looks once more
                log.exception("The load test runs on, but is no longer watched")
                return
            self._looks += 1
            took = time.thread_time() - before
            self._cpu += took
            pause = max(self._every, took / MOST_OF_A_CORE)
            if told is not None:
                self.found = {"at": round(max(0.0, time.monotonic() - began), 3), **told}
                log.info("Stopping the load test: %s", ", ".join(told["reasons"]))
                halt.touch()
                return


def _new(files: Sequence[Path], places: list[int], number: int) -> list[Sample]:
    """The complete rows that were added to a file; another machine's may not be there yet."""
    try:
        with files[number].open("rb") as file:
            file.seek(places[number])
            data = file.read()
    except FileNotFoundError:
        return []
    data = data[: data.rfind(b"\n") + 1]
    places[number] += len(data)
    return list(parse(data.decode()))
