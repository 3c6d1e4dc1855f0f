"""Progress of a transfer as log lines, and as a document for who watches: how much of how much, the rate, the
time left."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

EVERY_SECONDS = 5.0
# Each report is a request to S3.
REPORT_SECONDS = 15.0
log = logging.getLogger("trainyard.progress")


class Progress:
    """Counts bytes from any thread, and logs a line every few seconds while the block runs, and one at its
    end.

    report: called with `figures()` every 15 s and at the end; what it raises is logged and forgotten.
    """

    def __init__(
        self,
        what: str,
        total: int,
        files: int,
        *,
        every: float = EVERY_SECONDS,
        report: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.what, self.total, self.files, self.every, self.report = what, total, files, every, report
        self.done, self.skipped, self.finished = 0, 0, 0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._talk, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        log.info("%s", self.line())
        self._tell()

    def add(self, size: int) -> None:
        with self._lock:
            self.done += size

    def skip(self, size: int) -> None:
        """These bytes need not be moved: they count as done, but not for the rate."""
        with self._lock:
            self.skipped += size

    def finish_file(self) -> None:
        with self._lock:
            self.finished += 1

    def figures(self) -> dict[str, Any]:
        """done and total in bytes; rate in bytes a second; seconds_left: None while nobody can say."""
        done, skipped, finished, rate, left = self._now()
        return {
            "what": self.what,
            "done": done + skipped,
            "total": self.total,
            "rate": round(rate),
            "seconds_left": round(left / rate) if left and rate else None if left else 0,
            "files_done": finished,
            "files": self.files,
        }

    def line(self) -> str:
        return f"{self.what}: {words(self.figures())}"

    def _now(self) -> tuple[int, int, int, float, int]:
        with self._lock:
            done, skipped, finished = self.done, self.skipped, self.finished
        seconds = max(time.monotonic() - self.began, 1e-6)
        return done, skipped, finished, done / seconds, max(0, self.total - done - skipped)

    def _talk(self) -> None:
        told = self.began
        while not self._ended.wait(self.every):
            log.info("%s", self.line())
            if time.monotonic() - told >= REPORT_SECONDS:
                told = time.monotonic()
                self._tell()

    def _tell(self) -> None:
        if self.report is None:
            return
        try:
            self.report(self.figures())
        except Exception as error:  # a transfer does not fail because nobody can watch it
            log.warning("cannot report progress: %s", error)


def words(figures: Mapping[str, Any]) -> str:
    """`figures()` for people: how much of how much, how fast, how long still."""
    text = f"{_bytes(figures['done'])} of {_bytes(figures['total'])}, {_bytes(figures['rate'])}/s"
    if figures["files_done"]:
        text += f", {figures['files_done']} of {figures['files']} files"
    if figures["seconds_left"]:
        text += f", {_duration(figures['seconds_left'])} left"
    return text


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} TiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
