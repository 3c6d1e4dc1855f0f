"""A work queue: each key is worked on by one worker at a time, added again while busy means once more
afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import aiohttp

from local.client.api import ApiError

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)


class Queue(Generic[K]):
    """Deduplicating queue with delays and per-key back-off (as client-go's workqueue)."""

    def __init__(self, name: str, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        """`reconcile` may return seconds after which to look at the key again."""
        self.name = name
        self._reconcile = reconcile
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K) -> None:
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Add later; of several pending delays for one key the earliest counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, seconds)
        timer = self._timers.get(key)
        if timer is not None and not timer.cancelled() and timer.when() > loop.time():
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def run(self, workers: int = 1) -> None:
        await asyncio.gather(*(self._work() for _ in range(workers)))

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._busy.add(key)
            try:
                again = await self._reconcile(key)
                self._failures.pop(key, None)
                if again is not None:
                    self.add_after(key, again)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                if not (isinstance(error, ApiError) and error.conflict):
                    log.warning(
                        "%s %s: %s (attempt %d)", self.name, key, error or type(error).__name__, failures
                    )
                self.add_after(key, min(0.02 * 2**failures, 5.0))
            except Exception:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                log.exception("%s %s failed (attempt %d)", self.name, key, failures)
                self.add_after(key, min(0.1 * 2**failures, 30.0))
            finally:
                self._busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
