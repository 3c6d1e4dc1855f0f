"""Reads the `/metrics` of all servers of both arms beside a load test, or instead of one.

One row a server and moment, `{"at", "arm", "server", "synthetic", "text"}`, all servers of a moment at the
same `at` (seconds since the first one). What could not be read is a row with `error` instead of `text`: a gap
that nobody fills. synthetic: our own requests were under way in the time that ends with this scrape.
"""

from __future__ import annotations

import gzip
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from trainyard.bench.pages import get_page
from trainyard.bench.series import needed

NAME = "metrics.ndjson.gz"
TIMEOUT_SECONDS = 5.0
MOST_AT_ONCE = 16
EVERY = (0.25, 5.0)  # seconds between scrapes, at the least and, of a short phase, at the most
PARTS, MOST = 30, 1000  # scrapes that a phase should have, and may have

Row = dict[str, Any]
log = logging.getLogger("trainyard.bench")


def period(seconds: float) -> float:
    """Seconds between scrapes of a phase that takes so long. Each costs the server a few milliseconds."""
    least, most = EVERY
    return max(min(most, seconds / PARTS), least, seconds / MOST)


class Scraper:
    """Scrapes in a thread from `start` to `stop`, and once at each of them.

    seen: told the rows of each moment, in that thread. The rows go to `file` as they come, compressed: a day
    of many servers is more than a pod's memory should hold.
    """

    def __init__(
        self,
        servers: Mapping[str, Sequence[str]],
        file: IO[bytes],
        *,
        every: float,
        synthetic: bool,
        seen: Callable[[Sequence[Row]], None] | None = None,
    ) -> None:
        self._servers = [(arm, url) for arm, urls in servers.items() for url in urls]
        self._every, self._synthetic, self._seen = every, synthetic, seen
        self._out = gzip.GzipFile(fileobj=file, mode="wb", mtime=0)
        self._began: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)
        self._pool = ThreadPoolExecutor(min(MOST_AT_ONCE, max(1, len(self._servers))))
        self.moments = self.failures = 0

    def start(self) -> None:
        """The first scrape is done when this returns."""
        self.scrape(synthetic=False)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """Scrapes a last time; returns what the summary says of it."""
        self._over.set()
        self._thread.join()
        self.scrape(synthetic=self._synthetic)
        self._pool.shutdown()
        self._out.close()
        return {"servers": len(self._servers), "moments": self.moments, "failures": self.failures}

    def scrape(self, *, synthetic: bool) -> None:
        now = time.monotonic()
        self._began = self._began if self._began is not None else now
        at = round(now - self._began, 3)
        rows = []
        for (arm, url), said in zip(self._servers, self._pool.map(ask, self._servers), strict=True):
            rows.append({"at": at, "arm": arm, "server": url, "synthetic": synthetic, **said})
            self.failures += "error" in said
        self.moments += 1
        for row in rows:
            self._out.write((json.dumps(row, separators=(",", ":")) + "\n").encode())
        if self._seen is not None:
            try:
                self._seen(rows)
            except Exception:  # a watcher that breaks down must not end the record
                log.exception("The servers' metrics are recorded on, but no longer watched")
                self._seen = None

    def _run(self) -> None:
        due = time.monotonic() + self._every
        while not self._over.wait(max(0.0, due - time.monotonic())):
            self.scrape(synthetic=self._synthetic)
            due = max(due + self._every, time.monotonic())


def ask(server: tuple[str, str], seconds: float = TIMEOUT_SECONDS) -> dict[str, str]:
    """The page's text, or why there is none. seconds: for all of it; one server must not keep the others
    from being heard."""
    try:
        status, body = get_page(server[1], "/metrics", seconds)
    except OSError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    if status != 200:
        return {"error": f"status {status}"}
    return {"text": needed(body.decode("utf-8", "replace"))}


def unpack_rows(data: bytes) -> Iterator[Row]:
    """Raises ValueError or OSError for what is no such file."""
    for line in gzip.decompress(data).decode().splitlines():
        yield json.loads(line)
