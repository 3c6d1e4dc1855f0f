"""Wakes a greenlet at a moment, to some ten microseconds.

gevent's timers end with `epoll_wait`, which counts in whole milliseconds and rounds up: every send would be
up to one late. Linux gives timers as files; a timer's end is then an arrival like any other. Imported only
where gevent has patched the standard library (`locustfile`).
"""

from __future__ import annotations

import ctypes
import os
import time

import gevent
from gevent.hub import get_hub

READABLE = 1
_MONOTONIC = 1  # CLOCK_MONOTONIC, which time.monotonic reads
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK, TFD_CLOEXEC
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class _Spec(ctypes.Structure):
    """struct itimerspec: the interval, then the first end."""

    _fields_ = [(name, ctypes.c_long) for name in ("every", "every_nano", "seconds", "nano")]


class Ticker:
    """For one greenlet. Where the machine has no such timers, gevent's own do."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(_MONOTONIC, _FLAGS) if _has_timers(self._libc) else -1
        self._watcher = get_hub().loop.io(self._file, READABLE) if self._file >= 0 else None

    def sleep_until(self, moment: float) -> None:
        """moment: of time.monotonic. Returns at once for one that is past."""
        while (left := moment - time.monotonic()) > 0:
            if self._watcher is None:
                gevent.sleep(left)
                continue
            nano = round(moment * 1e9)
            spec = _Spec(0, 0, nano // 10**9, nano % 10**9)
            self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(spec), None)
            get_hub().wait(self._watcher)
            os.read(self._file, 8)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            os.close(self._file)
            self._watcher = None


def _has_timers(libc: ctypes.CDLL) -> bool:
    return hasattr(libc, "timerfd_create")
