"""Bytes of files on the Hub. urllib3 and not `huggingface_hub`: that one downloads to disk, these go straight
on."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from trainyard.errors import CorruptArtifact, HubUnavailable, NotFound, PermanentError
from trainyard.hub_reader import Hold, Reader

# Tries without a byte of progress between them.
TRIES = 5
CHUNK = 1 << 20
LONGEST_WAIT = 20.0
MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)


class Content:
    """Files of one Hub, at pinned commits. Safe to use from several threads."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self.endpoint, self.token = endpoint, token
        self.hold = Hold()
        self._manager: Any = None

    def read(self, repo: str, sha: str, path: str, max_bytes: int) -> bytes:
        """A whole small file. Raises CorruptArtifact if it has more than `max_bytes`."""
        where = f"{repo}@{sha}: {path}"
        for attempt in range(TRIES):
            try:
                with self._open(repo, sha, path, {}) as response:
                    # One byte more than allowed tells "too large" from "just fits".
                    body: bytes = response.read(max_bytes + 1, decode_content=False)
                if len(body) > max_bytes:
                    raise CorruptArtifact(
                        f"{where} is larger than {max_bytes} bytes, which is absurd for such a file."
                    )
                return body
            except HubUnavailable as error:
                wait(error, attempt)
        raise AssertionError("unreachable")

    def read_range(self, repo: str, sha: str, path: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`; fewer at the file's end. A Hub that ignores Range is coped with."""
        if length <= 0:
            return b""
        for attempt in range(TRIES):
            try:
                with self._open(repo, sha, path, _range(start, start + length)) as response:
                    skip = _offset(response, start)
                    body = bytearray()
                    for chunk in response.stream(min(CHUNK, skip + length), decode_content=False):
                        body += chunk
                        if len(body) > skip:
                            del body[:skip]
                            skip = 0
                        if not skip and len(body) >= length:
                            break
                    return bytes(body[:length])
            except HubUnavailable as error:
                wait(error, attempt)
        raise AssertionError("unreachable")

    def stream(self, repo: str, sha: str, path: str, size: int) -> Iterator[bytes]:
        """Exactly `size` bytes, in order. Raises CorruptArtifact if there are more, HubUnavailable if it
        stays broken."""
        done, fruitless = 0, 0
        while done < size:
            before = done
            try:
                with self._open(repo, sha, path, _range(done, size) if done else {}) as response:
                    skip = _offset(response, done)
                    for chunk in response.stream(CHUNK, decode_content=False):
                        if skip:
                            cut = min(skip, len(chunk))
                            chunk, skip = chunk[cut:], skip - cut
                        done += len(chunk)
                        if done > size:
                            raise CorruptArtifact(
                                f"{repo}@{sha}: {path} has more bytes than the Hub listed ({size})."
                            )
                        if chunk:
                            yield chunk
                if done < size and done == before:
                    raise HubUnavailable(f"{repo}@{sha}: {path} ends after {done} of {size} bytes.")
            except HubUnavailable as error:
                fruitless = 0 if done > before else fruitless + 1
                wait(error, fruitless)

    def reader(self, repo: str, sha: str, path: str, size: int, digest: str | None = None) -> Reader:
        """Ranged reads of one file, from several threads. digest: its SHA-256, where the Hub listed one."""
        return Reader(self, repo, sha, path, size, digest)

    @contextmanager
    def _open(self, repo: str, sha: str, path: str, headers: dict[str, str]) -> Iterator[Any]:
        """The reply to a GET, checked, redirects followed. What breaks inside the block becomes
        HubUnavailable."""
        where = f"{repo}@{sha}: {path}"
        with self.open_url(self.url(repo, sha, path), where, headers, repo) as (response, _):
            check(response, where)
            yield response

    def url(self, repo: str, sha: str, path: str) -> str:
        return f"{self.endpoint}/{repo}/resolve/{sha}/{quote(path)}"

    @contextmanager
    def open_url(
        self, url: str, where: str, headers: dict[str, str], repo: str
    ) -> Iterator[tuple[Any, list[Any]]]:
        """The last reply to a GET, and the redirects that led there; its status is the caller's to check."""
        import urllib3.exceptions

        # The CDN must not squeeze: offsets and digests are of the file's own bytes.
        sent = {"Accept-Encoding": "identity", "User-Agent": "trainyard", **headers}
        response, hops = None, []
        try:
            for _ in range(MOST_REDIRECTS + 1):
                self.hold.wait()
                # The token is the Hub's: it never goes to another host, nor does a signed address need it.
                own = {"Authorization": f"Bearer {self.token}"} if self.token and self._is_hub(url) else {}
                response = self._pool().request(
                    "GET", url, headers=sent | own, preload_content=False, redirect=False
                )
                if response.status not in _REDIRECTS:
                    break
                hops.append(response.headers)
                url = self._next(url, response.headers.get("Location", ""), where, repo)
                response.drain_conn()
            else:
                raise PermanentError(f"{where}: the Hub redirects in a circle. Look at its status page.")
            if response.status == 429:
                self.hold.set(retry_after(response) or 0.0)
            hops.append({"Location": url})
            yield response, hops
        except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
            raise HubUnavailable(f"{where}: the connection to the Hub broke ({error}).") from error
        finally:
            if response is not None:
                # Read to its end it can serve the next request; cut short it cannot.
                response.release_conn() if response.length_remaining == 0 else response.close()

    def _is_hub(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self.endpoint)[:2]

    def _next(self, url: str, location: str, where: str, repo: str) -> str:
        target = urljoin(url, location)
        parts = urlsplit(target)
        if not location or parts.scheme not in ("http", "https"):
            raise PermanentError(f"{where}: the Hub redirects to {location!r}, which no file can have.")
        if urlsplit(url).scheme == "https" and parts.scheme != "https":
            raise PermanentError(f"{where}: the Hub redirects from HTTPS to plain {parts.netloc}: refused.")
        moved = parts.path.partition("/resolve/")
        if self._is_hub(target) and moved[1] and moved[0].strip("/").lower() != repo.lower():
            raise PermanentError(
                f"{where}: the repository was moved to {moved[0].strip('/')}. Name it by its new name if you "
                "trust it."
            )
        return target

    def _pool(self) -> Any:
        if self._manager is None:
            import urllib3

            self._manager = urllib3.PoolManager(
                maxsize=32,
                timeout=urllib3.Timeout(connect=10, read=60),
                # Everything but a connection that is refused is repeated above, where the offset is known.
                retries=urllib3.Retry(
                    total=2,
                    redirect=0,
                    connect=2,
                    read=0,
                    status=0,
                    other=0,
                    backoff_factor=0.2,
                    respect_retry_after_header=False,  # honoured above, with its message
                ),
            )
        return self._manager


def check(response: Any, where: str) -> None:
    status = response.status
    if status in (200, 206):
        return
    code = response.headers.get("X-Error-Code", "")
    if code == "RepoNotFound":  # with status 401 for those who send no token
        raise NotFound(
            f"{where} does not exist on the Hub, or is private. Check the name; for a private one give a "
            "token."
        )
    if code == "RevisionNotFound":
        raise NotFound(f"{where}: the Hub has the repository but not that revision. Check it.")
    if code == "GatedRepo" or status in (401, 403):
        raise PermanentError(
            f"{where}: the Hub refuses access ({status} {code}). Accept the model's licence with the account "
            "of the "
            "token, and give that token (HF_TOKEN)."
        )
    if status == 404:
        raise NotFound(f"{where} does not exist on the Hub.")
    if status == 416:
        raise CorruptArtifact(f"{where} is shorter than the Hub listed.")
    if status == 429 or status >= 500:
        after = retry_after(response)
        limited = " It limits how much one account may ask for." if status == 429 else ""
        asked = f" It asks to wait {after:.0f} s." if after else ""
        raise HubUnavailable(f"{where}: the Hub answers {status}.{limited}{asked}", retry_after=after)
    raise PermanentError(f"{where}: the Hub answers {status}. Look at its status page.")


def retry_after(response: Any) -> float | None:
    """Seconds that the reply asks to wait; the date form is not sent by the Hub."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        return None


def _range(start: int, end: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-{end - 1}"}


def _offset(response: Any, wanted: int) -> int:
    """Bytes to skip until offset `wanted`: a server may ignore Range and send everything."""
    if response.status == 200:
        return wanted
    begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if begins is None or int(begins[1]) != wanted:
        raise HubUnavailable(f"asked for bytes from {wanted}, got {response.headers.get('Content-Range')!r}.")
    return 0


def wait(error: HubUnavailable, attempt: int) -> None:
    """Sleep before another try; raise `error` if it was the last, or the Hub asks for a long wait."""
    seconds = max(error.retry_after or 0.0, random.uniform(0.1, 0.3) * 2**attempt)
    if attempt >= TRIES - 1 or seconds > LONGEST_WAIT:
        raise error
    time.sleep(seconds)
