"""Processes that stand for containers: own session, dead when the kubelet dies, killed with all their
descendants.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

_PR_SET_PDEATHSIG = 1
_PIPE_READ = 1 << 16


def death_signal() -> Callable[[], None] | None:
    """A preexec function that has the kernel kill the child with us (Linux); elsewhere None."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


_die_with_us = death_signal()


class Process:
    """One started process and its descendants."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.popen = popen
        self.pid = popen.pid
        self._exited = asyncio.get_running_loop().create_future()
        self._watch()

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
    ) -> Process:
        """Start in a session of its own; raises OSError when the program cannot be run."""
        popen = subprocess.Popen(
            list(argv),
            env=dict(environment),
            cwd=folder,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=_die_with_us,
        )
        return cls(popen)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            handle = os.pidfd_open(self.pid)
        except (OSError, AttributeError):
            threading.Thread(target=self._block, args=(loop,), daemon=True).start()
            return

        def ended() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            self._set(self.popen.wait())

        loop.add_reader(handle, ended)

    def _block(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self.popen.wait()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._set, code)

    def _set(self, code: int) -> None:
        if not self._exited.done():
            # A shell's and containerd's way to say "killed by signal N": 128 + N.
            self._exited.set_result(128 - code if code < 0 else code)

    @property
    def alive(self) -> bool:
        return not self._exited.done()

    async def wait(self) -> int:
        return int(await asyncio.shield(self._exited))

    def family(self) -> list[psutil.Process]:
        """The process and all its descendants that still live."""
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.Error:
            return []

    def resident(self) -> int:
        """Bytes of resident memory of the whole family."""
        total = 0
        for each in self.family():
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss
        return total

    def signal(self, number: int) -> None:
        """Send a signal to the process group."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill the family, those that left the process group included."""
        family = self.family() if self.alive else []
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for each in family:
            with contextlib.suppress(psutil.Error):
                each.kill()

    def sweep(self) -> None:
        """After the main process ended: kill what it left, as the end of a PID namespace would."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Pump:
    """Moves what a pipe brings to a consumer, without a thread or task per pipe."""

    def __init__(self, pipe: int, consume: Callable[[bytes], None]) -> None:
        self._pipe = pipe
        self._consume = consume
        self._open = True
        self.ended = asyncio.Event()
        os.set_blocking(pipe, False)
        asyncio.get_running_loop().add_reader(pipe, self._ready)

    @classmethod
    def of(cls, pipe: IO[bytes] | None, consume: Callable[[bytes], None]) -> Pump:
        """Take over the descriptor of a file object, which is closed."""
        assert pipe is not None
        handle = os.dup(pipe.fileno())
        pipe.close()
        return cls(handle, consume)

    def _ready(self) -> None:
        try:
            data = os.read(self._pipe, _PIPE_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._consume(data)
        else:
            self.close()

    def drain(self) -> None:
        """Take what is there now, then close (descendants may still hold the other end)."""
        for _ in range(1024):
            if not self._open:
                return
            try:
                data = os.read(self._pipe, _PIPE_READ)
            except OSError:
                break
            if not data:
                break
            self._consume(data)
        self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self.ended.set()
