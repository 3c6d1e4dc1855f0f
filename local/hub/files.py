"""File downloads: `resolve`, the CDN that LFS files redirect to, ranges, and faults in the body."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from local.hub.faults import Fault
from local.hub.repository import Blob, Commit

CHUNK = 1024 * 1024
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_moves = itertools.count(1)


class Unsatisfiable(Exception):
    """A range that lies outside the file."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """[start, stop) of a single `Range: bytes=…`, or None for the whole file (no, many or malformed ranges).

    Raises Unsatisfiable where HTTP wants 416 (RFC 9110, 14.1.2).
    """
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        start, stop = max(size - int(last), 0), size
        if int(last) == 0:
            raise Unsatisfiable
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size:
        raise Unsatisfiable
    return start, stop


def metadata(commit: Commit, blob: Blob, fault: Fault) -> dict[str, str]:
    """Headers that clients read from a HEAD: commit, ETag, and for LFS files the linked size and ETag."""
    digest = blob.sha256 or blob.oid
    if fault.moving_etag:
        digest = f"{next(_moves):0{len(digest)}x}"
    headers = {
        "X-Repo-Commit": commit.sha,
        "Accept-Ranges": "bytes",
        "ETag": f'"{digest}"',
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(blob.path.split('/')[-1])};",
    }
    if blob.sha256 is not None:
        headers |= {"X-Linked-Size": str(blob.size), "X-Linked-ETag": f'"{digest}"'}
    return headers


def redirect(request: web.Request, repo: str, commit: Commit, blob: Blob, fault: Fault) -> web.Response:
    """302 from `resolve` to the CDN, as the Hub does for LFS files."""
    location = f"{request.scheme}://{request.host}/cdn-lfs/{repo}/{commit.sha}/{quote(blob.path)}"
    headers = metadata(commit, blob, fault) | {"Location": location}
    return web.Response(status=302, headers=headers, text=f"Found. Redirecting to {location}")


async def send(request: web.Request, commit: Commit, blob: Blob, fault: Fault) -> web.StreamResponse:
    """Answer with the file or a range of it; `request["sent"]` counts the bytes of the body."""
    headers = metadata(commit, blob, fault)
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return web.Response(status=304, headers=headers)
    asked = None if fault.ignore_range else request.headers.get("Range")
    try:
        part = parse_range(asked, blob.size)
    except Unsatisfiable:
        return web.Response(status=416, headers=headers | {"Content-Range": f"bytes */{blob.size}"})
    start, stop = part or (0, blob.size)
    response = web.StreamResponse(status=206 if part else 200, headers=headers)
    if part:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
    response.content_type = "application/json" if blob.path.endswith(".json") else "application/octet-stream"
    response.content_length = stop - start
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    if fault.truncate is not None:
        stop = min(stop, start + fault.truncate)
    await _stream(request, response, commit.folder / blob.path, start, stop, fault)
    if fault.truncate is not None and request.transport is not None:
        # A body shorter than its Content-Length: the peer sees the connection close in the middle.
        request.transport.close()
    else:
        await response.write_eof()
    return response


async def _stream(
    request: web.Request, response: web.StreamResponse, path: Path, start: int, stop: int, fault: Fault
) -> None:
    chunk = CHUNK if fault.rate is None else max(1, min(CHUNK, int(fault.rate / 10)))
    began, position = time.monotonic(), start
    with path.open("rb") as file:
        file.seek(start)
        while position < stop:
            content = file.read(min(chunk, stop - position))
            if not content:
                break
            if fault.flip_bit is not None and position <= fault.flip_bit < position + len(content):
                damaged = bytearray(content)
                damaged[fault.flip_bit - position] ^= 1
                content = bytes(damaged)
            await response.write(content)
            position += len(content)
            request["sent"] = position - start
            if fault.rate is not None:
                await asyncio.sleep(max(0.0, (position - start) / fault.rate - (time.monotonic() - began)))
