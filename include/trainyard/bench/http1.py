"""An HTTP/1.1 response, fed in whatever pieces the network hands over.

Why not `http.client`: it pulls, through a buffer of its own, so a caller cannot stamp bytes when they arrive.
Here bytes are pushed in right after `recv` and stamped there. Framing follows RFC 9112, section 6.
"""

from __future__ import annotations

import re

MAX_HEAD_BYTES = 64 * 1024
MAX_SIZE_DIGITS = 8
HEX_DIGITS = b"0123456789abcdefABCDEF"
_FOLD = re.compile(rb"\r\n[ \t]+")  # a header's next line; nobody may send it, and all must read it


class MalformedResponse(Exception):
    """The bytes are not an HTTP/1.1 response. body: of the same piece, before that."""

    body = b""


class Response:
    """Parses one response. `feed` returns the body bytes that became available.

    status: of the final response (1xx are skipped); 0 until the head is complete.
    complete: the body ended where its framing says it ends.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self._buffer = bytearray()
        self._chunked = False
        self._left: int | None = None  # bytes of the body or the chunk still to come; None: until close
        self._state = "head"

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they came from the socket; return decoded body bytes (possibly none)."""
        if self._state == "until-close":
            return data
        if self._state == "chunk-size" and not self._buffer:
            # A server that streams sends one chunk at a time, and nearly always it arrives in one piece.
            end = data.find(b"\r\n")
            digits = data[:end]
            if 0 < end <= MAX_SIZE_DIGITS and not digits.translate(None, HEX_DIGITS):
                size = int(digits, 16)
                if size and len(data) == end + size + 4 and data.endswith(b"\r\n"):
                    return data[end + 2 : -2]
        self._buffer += data
        body = bytearray()
        try:
            while not self.complete and self._advance(body):
                pass
        except MalformedResponse as error:
            error.body = bytes(body)
            raise
        return bytes(body)

    @property
    def between_chunks(self) -> bool:
        """The next byte is the first one of a chunk's size."""
        return self._state == "chunk-size" and not self._buffer

    def end(self) -> bool:
        """The peer closed the connection. True if that is a proper end of the body."""
        if self._state == "until-close":
            self.complete = True
        return self.complete

    def _advance(self, body: bytearray) -> bool:
        """One step; False when more bytes are needed."""
        if self._state == "head":
            return self._read_head()
        if self._state == "length":
            return self._read_left(body)
        if self._state == "until-close":
            body += self._buffer
            self._buffer.clear()
            return False
        if self._state == "chunk-size":
            return self._read_chunk_size()
        if self._state == "chunk-data":
            if self._left:
                return self._read_left(body)
            return self._read_chunk_end()
        return self._read_trailers()

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise MalformedResponse(f"a line is longer than {MAX_HEAD_BYTES} bytes")
            return None
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        return line

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise MalformedResponse(f"the head is longer than {MAX_HEAD_BYTES} bytes")
            if not b"HTTP/".startswith(bytes(self._buffer[:5])):
                raise MalformedResponse(f"not HTTP: starts with {bytes(self._buffer[:20])!r}")
            return False
        head = _FOLD.sub(b" ", bytes(self._buffer[:end]))
        lines = head.decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, _, rest = lines[0].partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or len(code) != 3 or not (code.isascii() and code.isdigit()):
            raise MalformedResponse(f"not a status line: {lines[0][:80]!r}")
        if code[0] == "1":
            return True  # an interim response: the real one follows
        self.status = int(code)
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise MalformedResponse(f"not a header: {line[:80]!r}")
            self.headers[name.strip().lower()] = value.strip()
        self._choose_framing()
        return True

    def _choose_framing(self) -> None:
        if self.status in (204, 304):
            self.complete = True
        elif "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._state = "chunk-size"
        elif "content-length" in self.headers:
            length = self.headers["content-length"]
            if not (length.isascii() and length.isdigit()):
                raise MalformedResponse(f"content-length is {length!r}")
            self._left = int(length)
            self._state = "length"
            self.complete = self._left == 0
        else:
            self._state = "until-close"

    def _read_left(self, body: bytearray) -> bool:
        """Move what is there of the `_left` bytes to the body."""
        assert self._left is not None
        piece = self._buffer[: self._left]
        if not piece:
            return False
        body += piece
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        if self._state == "length" and not self._left:
            self.complete = True
        return True

    def _read_chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        digits = line.split(b";", 1)[0].strip()  # extensions follow the semicolon
        if not digits or digits.translate(None, HEX_DIGITS):  # int() takes more
            raise MalformedResponse(f"not a chunk size: {line[:40]!r}")
        self._left = int(digits, 16)
        self._state = "chunk-data" if self._left else "trailers"
        return True

    def _read_chunk_end(self) -> bool:
        line = self._line()
        if line is None:
            return False
        if line:
            raise MalformedResponse(f"a chunk is longer than its size: {line[:40]!r}")
        self._state = "chunk-size"
        return True

    def _read_trailers(self) -> bool:
        line = self._line()
        if line is None:
            return False
        self.complete = not line
        return True
