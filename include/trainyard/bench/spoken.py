"""The text of an answer, with the moments of its chunks and how many tokens each of them brought."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate


@dataclass
class Spoken:
    """texts, stamps: of every chunk with text. counted: tokens that the server has told so far, with chunks.

    counts_all: false where some of those counts are of one of several choices, or cover chunks before them.
    """

    texts: list[str] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    counted: int = 0
    counts_all: bool = True
    # Where the server counts as it goes: stamps of the chunks with new tokens, and how many those are.
    _count_stamps: list[float] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)

    def count(self, told: int, now: float) -> None:
        """The server says with a chunk how many tokens there have been."""
        new = told - self.counted
        if new > 0:
            self._count_stamps.append(now)
            self._counts.append(new)
            self.counted = told

    def tokens(self, total: int | None, finish_reason: str) -> list[tuple[float, int]]:
        """(stamp, tokens) of every chunk that brought tokens. total: what the server said at last.

        Counts sent along with all chunks; else the total, spread over the chunks by their characters.
        """
        if (self._counts and self.counts_all) or not self.stamps:
            return list(zip(self._count_stamps, self._counts, strict=True))
        if total is None:
            return []
        if total == len(self.texts) + 1 and finish_reason == "stop":
            total -= 1  # the end-of-sequence token is counted and has no text
        if total == len(self.texts):
            return [(stamp, 1) for stamp in self.stamps]
        upto = list(accumulate(map(len, self.texts)))
        given, spread = 0, []
        for stamp, seen in zip(self.stamps, upto, strict=True):
            new = round(total * seen / upto[-1]) - given
            given += new
            if new:
                spread.append((stamp, new))
        return spread
