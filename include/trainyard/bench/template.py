"""The short way to read a stream: its events differ in a text and a few numbers only.

The first event is parsed as JSON and learned: what stands before its text, and what stands behind it, where
any number may be another one. A later HTTP chunk that fits exactly holds one such event, and its text and
count are read where they stand. Whatever does not fit goes the long way, so nothing can be misread.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

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
        self._break, self._whole = b"\r\n" + head, _whole(tail).fullmatch

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

    def read_each(self, pieces: Sequence[bytes]) -> tuple[list[str], list[int]] | None:
        """Texts and counts (none: not said) of pieces that are one chunk each; None if one does not fit.

        The same as `read` of each, for half of its time.
        """
        texts, counts, match, border = [], [], self._whole, self._break
        extra = len(border) - 4  # the breaks behind the size and behind the event are not in the size
        try:
            for piece in pieces:
                size, _, rest = piece.partition(border)
                found = match(rest)
                if found is None or int(size, 16) != len(rest) + extra:
                    return None
                texts.append(found[1])
                counts.append(found[2])
            text = b'"'.join(texts).decode()
        except ValueError:
            return None
        if not text.isprintable():
            return None
        return text.split('"'), list(map(int, counts)) if self._counts else []

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


@functools.lru_cache(MAX_TAILS)
def _whole(tail: re.Pattern[bytes]) -> re.Pattern[bytes]:
    """A text, and the tail behind it. Two groups: the text, and the count or nothing."""
    return re.compile(rb'([^"\\]+)' + tail.pattern + (b"" if tail.groups else b"()"))
