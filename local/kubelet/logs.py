"""Container logs on disk in the CRI form: `<RFC3339Nano> <stream> <F|P> <text>`; written by us, read with
options.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

CUT = 16 * 1024
"""Longer lines are written in parts (tag P), as containerd does."""


def nano_stamp(nanoseconds: int) -> str:
    """RFC 3339 with nine digits, always UTC."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest:09d}Z"


class ContainerLog:
    """The log of one run of one container: one writer, any number of followers that wait for `grown`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._rest = {"stdout": b"", "stderr": b""}
        self.closed = False
        self._grown = asyncio.Event()

    def write(self, stream: str, data: bytes) -> None:
        data = self._rest[stream] + data
        *lines, rest = data.split(b"\n")
        moment = nano_stamp(time.time_ns()).encode()
        out = bytearray()
        for line in lines:
            while len(line) > CUT:
                out += b"%b %b P %b\n" % (moment, stream.encode(), line[:CUT])
                line = line[CUT:]
            out += b"%b %b F %b\n" % (moment, stream.encode(), line)
        while len(rest) > CUT:
            out += b"%b %b P %b\n" % (moment, stream.encode(), rest[:CUT])
            rest = rest[CUT:]
        self._rest[stream] = rest
        if out and not self.closed:
            self._file.write(out)
            self._wake()

    def close(self) -> None:
        """Write what has no newline yet and end all followers."""
        if self.closed:
            return
        for stream, rest in self._rest.items():
            if rest:
                self._file.write(
                    b"%b %b P %b\n" % (nano_stamp(time.time_ns()).encode(), stream.encode(), rest)
                )
        self.closed = True
        self._file.close()
        self._wake()

    def _wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    async def grown(self) -> None:
        if not self.closed:
            await self._grown.wait()


@dataclass(frozen=True)
class LogOptions:
    """What `kubectl logs` may ask for. `since` is nanoseconds since the epoch; None means all."""

    follow: bool = False
    tail: int | None = None
    since: int | None = None
    timestamps: bool = False
    limit: int | None = None


def parse_time(text: bytes) -> int:
    """Nanoseconds of an RFC 3339 stamp with up to nine fractional digits."""
    head, _, fraction = text.decode().rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(head + "+00:00").timestamp())
    return seconds * 10**9 + int((fraction or "0").ljust(9, "0")[:9])


def render(line: bytes, options: LogOptions) -> bytes:
    """One CRI line as a client sees it; empty when it is older than asked for."""
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return b""
    moment, _, tag, text = parts
    if options.since is not None and parse_time(moment) < options.since:
        return b""
    end = b"\n" if tag == b"F" else b""
    return (moment + b" " if options.timestamps else b"") + text + end


def tail_offset(path: Path, lines: int) -> int:
    """Offset in the file where its last `lines` lines begin."""
    with path.open("rb") as file:
        end = position = file.seek(0, os.SEEK_END)
        if lines <= 0:
            return end
        found = 0
        while position > 0:
            step = min(65536, position)
            position -= step
            file.seek(position)
            block = file.read(step)
            # The newline that ends the file ends the last line; it begins no other.
            limit = len(block) - 1 if position + step == end and block.endswith(b"\n") else len(block)
            while (hit := block.rfind(b"\n", 0, limit)) >= 0:
                found += 1
                if found == lines:
                    return position + hit + 1
                limit = hit
    return 0


async def read_log(path: Path, live: ContainerLog | None, options: LogOptions) -> AsyncIterator[bytes]:
    """Yield rendered chunks; with `follow`, wait for more until the run's log is closed."""
    left = options.limit
    offset = tail_offset(path, options.tail) if options.tail is not None else 0
    rest = b""
    with path.open("rb") as file:
        file.seek(offset)
        while True:
            finished = live is None or live.closed
            data = file.read(1 << 18)
            if data:
                *lines, rest = (rest + data).split(b"\n")
                chunk = b"".join(render(line, options) for line in lines)
                if left is not None:
                    chunk = chunk[:left]
                    left -= len(chunk)
                if chunk:
                    yield chunk
                if left == 0:
                    return
                continue
            if not options.follow or finished or live is None:
                return
            await live.grown()


def last_lines(path: Path, lines: int = 80, size: int = 2048) -> str:
    """End of the log as FallbackToLogsOnError wants it: at most 80 lines and 2048 bytes."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(tail_offset(path, lines))
        text = b"".join(render(line, LogOptions()) for line in file.read().split(b"\n"))
    return text[-size:].decode(errors="replace")
