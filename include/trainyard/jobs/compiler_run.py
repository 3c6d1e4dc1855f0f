"""Runs a compiler's command to its end and watches what it says: a lock that nobody holds, a deadline, a
failure that an earlier compile left in the cache."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainyard.errors import CompilerFailed, CompileStalled, OutOfMemory, TrainyardError
from trainyard.jobs import cache_hygiene
from trainyard.jobs.command import Finished, run_command
from trainyard.jobs.compiler_log import CompilerLog, Summary

FLAGS = "NEURON_CC_FLAGS"
RETRY_FLAG = "--retry_failed_compilation"
# libneuronxla says once a minute that it waits; a holder that lives has a compiler running nearly always.
STALL_SECONDS = 300.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """seconds: for the command, None without a limit; learned: less than the spec allows; stall_seconds: how
    long it may wait for another compiler where none runs."""

    seconds: float | None = None
    learned: bool = False
    stall_seconds: float = STALL_SECONDS


@dataclass(frozen=True)
class Ran:
    """seconds: of all runs; retried: it had to be run again, past a failure in the cache."""

    finished: Finished
    summary: Summary
    seconds: float
    retried: bool


class DeadlinePassed(Exception):
    """Raised inside `run_compiler`'s watch only."""


class Compiler:
    """One compile. `summary` holds what is known so far, also after a failure."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_file: Path,
        *,
        cache: Path | None,
        limits: Limits,
        log_place: str,
        until: str = "",
    ) -> None:
        self.command, self.environment, self.log_file = command, dict(environment), log_file
        self.cache, self.limits, self.log_place, self.until = cache, limits, log_place, until
        self._reading = CompilerLog()
        self._began = self._compiler_seen = time.monotonic()

    @property
    def summary(self) -> Summary:
        return self._reading.summary()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def run(self) -> Ran:
        """Raises CompilerFailed, OutOfMemory, CompileStalled, PermanentError (it cannot be started)."""
        self._began = time.monotonic()
        retried = False
        try:
            finished = self._once(append=False)
            poisoned = self.summary.poisoned
            if finished.code and poisoned:
                retried = True
                log.warning(
                    "the compiler met %d failed entries in its cache: once more, without them", len(poisoned)
                )
                cache_hygiene.remove_poisoned(poisoned)
                self.environment[FLAGS] = _with_retry(self.environment)
                finished = self._once(append=True)
        except DeadlinePassed:
            raise self._too_long() from None
        finally:
            for line in self.summary.lines():
                log.info("%s", line)
        if finished.code:
            raise self._failed(finished)
        return Ran(finished, self.summary, self.seconds, retried)

    def _once(self, *, append: bool) -> Finished:
        self._reading = reading = CompilerLog()
        return run_command(
            self.command,
            self.environment,
            self.log_file,
            each_line=lambda line: reading.take(line, time.monotonic()),
            check=self._check,
            append=append,
            until=self.until,
        )

    def _check(self) -> None:
        now = time.monotonic()
        if self.limits.seconds is not None and now - self._began > self.limits.seconds:
            raise DeadlinePassed
        waiting = self._reading.waiting_since
        if waiting is None:
            return
        if cache_hygiene.compiler_runs(self.cache):
            self._compiler_seen = now
        idle = now - max(waiting, self._compiler_seen)
        if idle > self.limits.stall_seconds:
            raise CompileStalled(
                f"{self.command[0]} waits for another compiler's lock, and no compiler has run here for "
                f"{idle:.0f} s: the one that took it was killed. The whole log is {self.log_place}. The next "
                "try clears the lock first."
            )

    def _too_long(self) -> TrainyardError:
        limit = self.limits.seconds or 0
        if self.limits.learned:
            return CompileStalled(
                f"{self.command[0]} ran for {self.seconds:.0f} s; compiles of its like were through by "
                f"{limit:.0f} s. The whole log is {self.log_place}. The next try gets twice the time, up to "
                "`compile.deadline_minutes`."
            )
        return CompilerFailed(
            f"{self.command[0]} ran for {self.seconds:.0f} s, longer than the spec allows. The whole log is "
            f"{self.log_place}. Raise `compile.deadline_minutes`.",
            reason="DeadlineExceeded",
        )

    def _failed(self, finished: Finished) -> TrainyardError:
        told = f"after {self.seconds:.0f} s; the whole log is {self.log_place}"
        first = self.summary.first_error
        found = f" It said first: {first}" if first else ""
        name = self.command[0]
        if finished.code in (-9, 137):
            return OutOfMemory(
                f"{name} was killed by SIGKILL {told}. Most likely it ran out of memory: raise the compile "
                "pod's memory in the release's spec.",
                reason="OOMKilled",
                exit_code=137,
                log=finished.tail,
            )
        if finished.code < 0:
            return CompilerFailed(
                f"{name} was killed by signal {-finished.code} {told}.{found}",
                reason="Error",
                exit_code=128 - finished.code,
                log=finished.tail,
            )
        return CompilerFailed(
            f"{name} exited with code {finished.code} {told}.{found}",
            reason="Error",
            exit_code=finished.code,
            log=finished.tail,
        )


def _with_retry(environment: Mapping[str, str]) -> str:
    before = environment.get(FLAGS, os.environ.get(FLAGS, ""))
    return before if RETRY_FLAG in before.split() else f"{before} {RETRY_FLAG}".strip()
