"""Runs a long command quietly: everything into a log file, to stdout only what matters and a summary now and
then."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trainyard.errors import PermanentError

SUMMARY_SECONDS = 10.0
# Grace between SIGTERM and SIGKILL: less than the 30 s that Kubernetes gives a pod.
GRACE_SECONDS = 10.0
TAIL_LINES = 30
LINE_CHARACTERS = 2000
# How often the caller's `check` is asked.
CHECK_SECONDS = 1.0
# A compiler that warns a million times is not to fill the pod's log.
MOST_LOUD_LINES = 50

_LOUD = re.compile(r"\b(WARN(ING)?|ERROR|CRITICAL|FATAL|Traceback|[A-Z]\w*Error)\b")
_DIGITS = re.compile(r"[0-9]+")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """code: exit code, negative for a signal; seconds: wall time; lines: of output; tail: the last lines."""

    code: int
    seconds: float
    lines: int
    tail: tuple[str, ...]


def run_command(
    command: Sequence[str],
    environment: Mapping[str, str],
    log_file: Path,
    *,
    each_line: Callable[[str], None] | None = None,
    check: Callable[[], None] | None = None,
    append: bool = False,
    until: str = "",
) -> Finished:
    """Run it to its end, stdout and stderr together into `log_file`. No shell.

    each_line: gets every line, from another thread. check: called now and then; what it raises ends the
    command. append: keep what the log file holds. until: a line with these words says that its work is done:
    it is told to end then, and whatever code it ends with counts as 0.
    However the caller leaves (SIGTERM raises in the main thread), the command's whole process group is gone
    then. Raises PermanentError if it cannot be started, and what `check` raises.
    """
    log.info("running %s", " ".join(command))
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise PermanentError(
            f"Cannot run {command[0]}: {error}. Check that the release's image is the engine's own."
        ) from error
    assert process.stdout is not None
    output = _Output(log_file, each_line, append, until)
    reader = threading.Thread(target=output.read, args=(process.stdout,), daemon=True)
    reader.start()
    told = began
    try:
        while True:
            try:
                code = process.wait(timeout=min(CHECK_SECONDS, SUMMARY_SECONDS))
                break
            except subprocess.TimeoutExpired:
                now = time.monotonic()
                if until and output.done.is_set():
                    log.info("%s says that it is done: %s", command[0], until)
                    code = 0
                    break
                if now - told >= SUMMARY_SECONDS:
                    told = now
                    log.info("%s: %.0f s, %d lines; last: %s", command[0], now - began, *output.summary())
                if check:
                    check()
    finally:
        end_group(process)
        reader.join(timeout=5)
    seconds = time.monotonic() - began
    log.info("%s exited with %d after %.1f s, %d lines of output", command[0], code, seconds, output.lines)
    return Finished(code, seconds, output.lines, tuple(output.tail))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and everything that it started: politely, then not."""
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        if process.poll() is not None and number == signal.SIGTERM:
            # The leader ended by itself; what it left behind gets no grace.
            continue
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
    process.poll()


class _Output:
    """What the command says: all of it into a file, the last lines in memory, the loud ones to the log.

    Of loud lines that differ in numbers only the first is said: a warning a layer is one warning.
    """

    def __init__(
        self, log_file: Path, each_line: Callable[[str], None] | None, append: bool, until: str
    ) -> None:
        self.until, self.done = until, threading.Event()
        self.log_file, self.each_line, self.mode = log_file, each_line, "ab" if append else "wb"
        self.lines, self.loud = 0, 0
        self.said: set[str] = set()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def read(self, stream: IO[bytes]) -> None:
        # Unbuffered: others read the file while it grows.
        with self.log_file.open(self.mode, buffering=0) as file, stream:
            rest = b""
            while chunk := os.read(stream.fileno(), 65536):
                file.write(chunk)
                # Progress bars rewrite their line: a carriage return ends one, too.
                *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
                rest = rest[-LINE_CHARACTERS * 4 :]
                for line in lines:
                    self._take(line)
            self._take(rest)

    def summary(self) -> tuple[int, str]:
        return self.lines, (self.tail[-1] if self.tail else "(nothing yet)")

    def _take(self, raw: bytes) -> None:
        line = _ESCAPES.sub("", raw.decode("utf-8", "replace")).rstrip()[:LINE_CHARACTERS]
        if not line:
            return
        self.lines += 1
        self.tail.append(line)
        if self.each_line:
            self.each_line(line)
        if self.until and self.until in line:
            self.done.set()
        if self.loud <= MOST_LOUD_LINES and _LOUD.search(line):
            shape = _DIGITS.sub("0", line)
            if shape in self.said:
                return
            self.said.add(shape)
            self.loud += 1
            log.info(
                "%s", line if self.loud <= MOST_LOUD_LINES else "(more warnings are in the log file only)"
            )
