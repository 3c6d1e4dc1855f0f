"""The short way to read a stream: its events differ in a text and a few numbers only.

The first event is parsed as JSON and learned: what stands before its text, and what stands behind it, where
any number may be another one. A later HTTP chunk that fits exactly holds one such event, and its text and
count are read where they stand. Whatever does not fit goes the long way, so nothing can be misread.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_KEYS = (b'"content":"', b'"content": "', b'"text":"', b'"text": "')
_NAME = b'"completion_tokens"'
_COUNT = re.compile(_NAME + rb": ?(\d+)[,}]")
# Any other one in the next event; but another choice's index is another choice.
_NUMBER = re.compile(rb'(?<!\d)(?<!"index":)(?<!"index": )\d+')
_END = rb"\n\n\r\n"  # of the event, and of the HTTP chunk
_patterns: dict[bytes, re.Pattern[bytes]] = {}
MAX_PATTERNS = 64  # a server whose events differ in more than numbers gains nothing


class Template:
    """Of one stream. head: from `data: ` to the quote before the text. usual: matches the text and all that
    stands behind it; its groups are the text, and the count or nothing."""

    def __init__(self, head: bytes, usual: re.Pattern[bytes]) -> None:
        self._border = b"\r\n" + head  # behind the chunk's size
        self._match, self._fullmatch = usual.match, usual.fullmatch

    @classmethod
    def learn(cls, event: bytes, text: str, count: object) -> Template | None:
        """From the data of an event that was parsed and brought `text` and `count`, which is no number where
        it says none; None if it is of no usual kind."""
        if not text.isprintable() or '"' in text or "\\" in text:  # half of a surrogate pair is not printable
            return None
        raw = text.encode()
        for key in _KEYS:
            before, found, behind = event.partition(key)
            if found and behind.startswith(raw + b'"') and key not in behind:
                usual = _usual(behind[len(raw) :], count)
                return cls(b"data: " + before + key, usual) if usual else None
        return None

    def read_each(self, pieces: Sequence[bytes]) -> tuple[list[str], list[int]] | None:
        """Texts and counts (none: not said) of pieces that are one chunk each; None if one does not fit.

        The same as `read` of each, for half of its time.
        """
        texts, counts, match, border = [], [], self._fullmatch, self._border
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
        return text.split('"'), list(map(int, counts)) if counts[0] else []

    def read(self, piece: bytes, start: int) -> tuple[str, int | None, int] | None:
        """Text and count of completion tokens (None: not said) of the chunk at `start`, and where it ends;
        None if it does not fit."""
        size = piece.find(b"\r\n", start)
        if size < 0 or not piece.startswith(self._border, size):
            return None
        found = self._match(piece, size + len(self._border))
        if found is None:
            return None
        try:
            text = found[1].decode()
            if not text.isprintable() or int(piece[start:size], 16) != found.end() - size - 4:
                return None
        except ValueError:
            return None
        return text, int(found[2]) if found[2] else None, found.end()


def _usual(literal: bytes, count: object) -> re.Pattern[bytes] | None:
    said = literal.count(_NAME)
    if said > 1 or (said and not ((found := _COUNT.search(literal)) and int(found[1]) == count)):
        return None  # of something else than the answer, or no whole number
    # Without its numbers: one pattern for all streams of a server.
    key = _NUMBER.sub(b"\0", literal)
    pattern = _patterns.get(key)
    if pattern is None and len(_patterns) < MAX_PATTERNS:
        source = re.escape(key).replace(b"\0", rb"\d+")
        if said:
            before, name, behind = source.partition(_NAME)
            source = before + name + behind.replace(rb"\d+", rb"(\d+)", 1)
        nothing = b"" if said else b"()"
        pattern = _patterns[key] = re.compile(rb'([^"\\]+)' + source + _END + nothing)
    return pattern
