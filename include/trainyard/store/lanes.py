"""How many connections read at once: as many as there are cores at first, more while that makes it faster.

S3 gives one connection about 90 MB/s, so far away many are needed. Beside a near store more of them than
cores only get into each other's way: twice the processor time for the same bytes, measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WINDOW_SECONDS = 1.0
# Networks change: what did not help once is tried again.
SETTLED_SECONDS = 30.0


class Lanes:
    """Connections that may be open. Safe to use from several threads."""

    def __init__(self, first: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.most = max(1, min(first, most)), most
        self._clock = clock
        self._open = self._waiting = 0
        self._bytes, self._since, self._settled = 0, clock(), 0.0
        self._before, self._best = self.limit, 0.0
        self._changed = threading.Condition()

    @contextmanager
    def one(self, check_stop: Callable[[], None]) -> Iterator[None]:
        """A connection of one's own, once there is one."""
        with self._changed:
            self._waiting += 1
            try:
                while self._open >= self.limit:
                    check_stop()
                    self._changed.wait(0.5)
                self._open += 1
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            self.give()

    def spare(self) -> bool:
        """Take one that nobody waits for; who gets True gives it back."""
        with self._changed:
            if self._waiting or self._open >= self.limit:
                return False
            self._open += 1
            return True

    def give(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify()

    def moved(self, count: int) -> None:
        """So many bytes arrived: the rate decides about more connections."""
        with self._changed:
            self._bytes += count
            took = self._clock() - self._since
            if took < WINDOW_SECONDS:
                return
            rate, self._bytes, self._since = self._bytes / took, 0, self._since + took
            # While not all are open, the rate says nothing of their number.
            if self._open >= self.limit and self._since >= self._settled:
                self._decide(rate)

    def _decide(self, rate: float) -> None:
        # Half of what the added connections would bring if each had a rate of its own.
        needed = self._best * (1 + (self.limit / self._before - 1) / 2)
        if rate < needed:
            self.limit = self._before
        elif self.limit < self.most:
            self._before, self._best = self.limit, rate
            self.limit = min(self.most, self.limit + max(1, self.limit // 2))
            self._changed.notify_all()
            return
        self._before, self._best = self.limit, 0.0
        self._settled = self._since + SETTLED_SECONDS
