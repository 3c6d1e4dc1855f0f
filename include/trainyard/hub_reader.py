"""Ranges of one file on the Hub, read straight into buffers by several threads.

The Hub counts requests to `resolve`, and redirects each to its CDN. So one request a file asks where its
bytes are; every other goes to that address until it expires.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainyard.errors import CorruptArtifact, HubUnavailable

if TYPE_CHECKING:
    from trainyard.hub_content import Content

# Tries without a byte of progress between them.
TRIES = 6
# Small enough to notice a stop soon, and to stay in the processor's cache between socket and buffer.
SLICE = 512 << 10
# The Hub's limits are counted over five minutes: within a transfer of hours, waiting that long is worth it.
LONGEST_WAIT = 330.0
_DIGEST = re.compile(r"[0-9a-f]{64}")
log = logging.getLogger(__name__)


class RangeIgnored(Exception):
    """The server sends the whole file whatever range is asked for."""


class Hold:
    """Nobody asks before this moment: a server that limits one thread limits them all."""

    def __init__(self) -> None:
        self._until = 0.0

    def set(self, seconds: float) -> None:
        if seconds <= LONGEST_WAIT:  # a longer wait is the task's: whoever got the answer fails with it
            self._until = max(self._until, time.monotonic() + seconds)

    def wait(self) -> None:
        while (left := self._until - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))


class Reader:
    """One file at a pinned commit. Safe to use from several threads."""

    def __init__(
        self, content: Content, repo: str, sha: str, path: str, size: int, digest: str | None
    ) -> None:
        self.content, self.repo, self.sha, self.path, self.size = content, repo, sha, path, size
        self.digest = digest
        self.where = f"{repo}@{sha}: {path}"
        self._lock = threading.Lock()
        self._address: str | None = None
        self._etag: str | None = None

    def read_into(self, start: int, view: memoryview, check_stop: Callable[[], None]) -> None:
        """Fill `view` with the bytes from `start`; what breaks is gone on with where it broke.

        Raises RangeIgnored, CorruptArtifact (another size, another ETag), HubUnavailable, NotFound,
        PermanentError (refused).
        """
        done, fruitless = 0, 0
        while done < len(view):
            before = done
            try:
                done = self._read_some(start, view, done, check_stop)
                if done < len(view) and done == before:
                    raise HubUnavailable(f"{self.where}: nothing comes at byte {start + done}.")
                fruitless = 0
            except _Broken as broken:
                done = broken.done
                fruitless = 0 if done > before else fruitless + 1
                _wait(broken.cause, fruitless, check_stop)
            except HubUnavailable as error:
                fruitless += 1
                _wait(error, fruitless, check_stop)

    def _read_some(self, start: int, view: memoryview, done: int, check_stop: Callable[[], None]) -> int:
        """One request; returns how much of `view` is filled after it."""
        begin, end = start + done, start + len(view)
        address = self._address
        url = address or self.content.url(self.repo, self.sha, self.path)
        asked = {"Range": f"bytes={begin}-{end - 1}"}
        try:
            with self.content.open_url(url, self.where, asked, self.repo) as (response, hops):
                if address is not None and response.status in (401, 403, 404, 410):
                    # Signed addresses expire; the Hub gives a new one, and says it if access is refused.
                    self._forget(address)
                    raise HubUnavailable(f"{self.where}: its address expired ({response.status}).")
                self._check(response, begin)
                self._remember(response, hops)
                while done < len(view):
                    check_stop()
                    count = _read_into(response, view[done : done + SLICE])
                    if not count:
                        break
                    done += count
        except HubUnavailable as error:
            raise _Broken(done, error) from error
        return done

    def _check(self, response: Any, begin: int) -> None:
        from trainyard.hub_content import check

        check(response, self.where)
        if response.status != 206:
            length = response.headers.get("Content-Length")
            if length is not None and int(length) != self.size:
                raise self._another_size(length)
            raise RangeIgnored(self.where)
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != begin:
            raise HubUnavailable(
                f"{self.where}: asked for bytes from {begin}, got {response.headers.get('Content-Range')!r}."
            )
        if found[3] not in ("*", str(self.size)):
            raise self._another_size(found[3])

    def _another_size(self, size: str) -> CorruptArtifact:
        return CorruptArtifact(f"{self.where} has {size} bytes, the Hub listed {self.size}.")

    def _remember(self, response: Any, hops: list[Any]) -> None:
        etag = response.headers.get("ETag")
        for hop in hops[:-1]:
            linked = (hop.get("X-Linked-ETag") or "").strip('"')
            if self.digest and _DIGEST.fullmatch(linked) and linked != self.digest:
                raise CorruptArtifact(
                    f"{self.where}: the Hub listed SHA-256 {self.digest} and now offers {linked}. A commit's "
                    "files never change: look at the repository."
                )
        with self._lock:
            if self._address is None:
                self._address, self._etag = hops[-1]["Location"], etag
            elif self._etag != etag:
                self._address = None
                raise CorruptArtifact(
                    f"{self.where} changes while it is read: its ETag was {self._etag}, then {etag}."
                )

    def _forget(self, address: str) -> None:
        with self._lock:
            if self._address == address:
                self._address = None
                log.info("%s: asking the Hub for a new address", self.where)


def _read_into(response: Any, view: memoryview) -> int:
    """Bytes of the body into `view`; 0 at its end. What breaks is one of urllib3's errors.

    From http.client's reply below: urllib3's own `readinto` reads into memory of its own first and copies,
    which is a tenth of the processor time of reading.
    """
    from http.client import HTTPException

    from urllib3.exceptions import ProtocolError

    try:
        count: int = response._fp.readinto(view)
    except (OSError, HTTPException) as error:
        raise ProtocolError(f"the connection broke: {error!r}", error) from error
    if (
        response.length_remaining is not None
    ):  # by it we know whether the connection can serve another request
        response.length_remaining -= count
    return count


class _Broken(Exception):
    """A reply broke after `done` bytes of the buffer."""

    def __init__(self, done: int, cause: HubUnavailable) -> None:
        super().__init__(str(cause))
        self.done, self.cause = done, cause


def _wait(error: HubUnavailable, fruitless: int, check_stop: Callable[[], None]) -> None:
    """Sleep before another try; raise `error` if it was the last, or the Hub asks for a longer wait."""
    wait = max(error.retry_after or 0.0, random.uniform(0.1, 0.3) * 2**fruitless)
    if fruitless >= TRIES or wait > LONGEST_WAIT:
        raise error
    if wait > 5:
        log.warning("%s Going on in %.0f s.", error, wait)
    until = time.monotonic() + wait
    while (left := until - time.monotonic()) > 0:
        check_stop()
        time.sleep(min(left, 0.25))
