"""The short way to read a stream: its events differ in a text and a few numbers only.

The first event is parsed as JSON and learned: what stands before its text, and what stands behind it, where
any number may be another one. A later HTTP chunk that fits exactly holds one such event, and its text and
count are read where they stand. Whatever does not fit goes the long way, so nothing can be misread.
"""

from __future__ import annotations

import re

_KEYS = (b'"content":"', b'"content": "', b'"text":"', b'"text": "')
_COUNT = re.compile(rb'"completion_tokens": ?(\d+)')
_NUMBER = re.compile(rb"\d+")
_END = rb"\n\n\r\n"  # of the event, and of the HTTP chunk
_tails: dict[bytes, re.Pattern[bytes]] = {}
MAX_TAILS = 64  # a server whose events differ in more than numbers gains nothing


class Template:
    """Of one stream. head: from `data: ` to the quote before the text. tail: from the quote behind it."""

    def __init__(self, head: bytes, tail: re.Pattern[bytes]) -> None:
        self._head, self._match, self._counts = head, tail.match, bool(tail.groups)

    @classmethod
    def learn(cls, event: bytes, text: str) -> Template | None:
        """From the data of an event that was parsed and brought `text`; None if it is of no usual kind."""
        raw = text.encode()
        if not text.isprintable() or b'"' in raw or b"\\" in raw:
            return None
        for key in _KEYS:
            before, found, behind = event.partition(key)
            if found and behind.startswith(raw + b'"') and key not in behind:
                tail = _tail(behind[len(raw) :])
                return cls(b"data: " + before + key, tail) if tail else None
        return None

    def read(self, piece: bytes, start: int) -> tuple[str, int | None, int] | None:
        """Text and count of completion tokens (None: not said) of the chunk at `start`, and where it ends;
        None if it does not fit."""
        size = piece.find(b"\r\n", start)
        if size < 0 or not piece.startswith(self._head, size + 2):
            return None
        begin = size + 2 + len(self._head)
        end = piece.find(b'"', begin)
        match = self._match(piece, end) if end > begin else None
        if match is None:
            return None
        try:
            text = piece[begin:end].decode()
            if "\\" in text or not text.isprintable() or int(piece[start:size], 16) != match.end() - size - 4:
                return None
        except ValueError:
            return None
        return text, int(match[1]) if self._counts else None, match.end()


def _tail(literal: bytes) -> re.Pattern[bytes] | None:
    if len(_COUNT.findall(literal)) > 1:
        return None
    # Numbers to zeros: one pattern for all streams of a server.
    key = _NUMBER.sub(b"0", literal)
    pattern = _tails.get(key)
    if pattern is None and len(_tails) < MAX_TAILS:
        source = re.escape(key).replace(b"0", rb"\d+")
        count = re.search(rb'"completion_tokens":(\\ )?', source)
        if count:
            source = source[: count.end()] + source[count.end() :].replace(rb"\d+", rb"(\d+)", 1)
        pattern = _tails[key] = re.compile(source + _END)
    return pattern
