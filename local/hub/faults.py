"""Faults by knob: `ROOT/faults.json`, read again for every request.

    {"rules": [{"match": "resolve/.*safetensors", "method": "GET", "status": 503, "count": 2}],
     "gated": ["org/name"], "denied": ["org/name"], "private": ["org/name"]}

A rule applies to requests whose decoded path its `match` is found in (and whose method is `method`), at most
`count` times; the first that applies is taken. What it does:

    status, retry_after   answer with this status (429 and 5xx worded as the Hub does)
    delay                 seconds before the answer starts
    truncate              close the connection after this many bytes of the body
    flip_bit              flip a bit of the file's byte at this offset; ranges without it are left alone
    rate                  bytes a second
    ignore_range          answer 200 with the whole file although a range was asked for
    moving_etag           a different ETag in every answer
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What is wrong with one answer; all fields default to nothing."""

    status: int | None = None
    retry_after: float | None = None
    delay: float = 0.0
    truncate: int | None = None
    flip_bit: int | None = None
    rate: float | None = None
    ignore_range: bool = False
    moving_etag: bool = False


@dataclass(frozen=True)
class Restrictions:
    """Repositories that not everybody may read, besides what their refs.json says."""

    gated: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()


SOUND = Fault()


@dataclass
class Faults:
    """The knobs of one server, with how often each rule was used."""

    path: Path
    used: Counter[str] = field(default_factory=Counter)

    def _content(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        return content

    def restrictions(self) -> Restrictions:
        content = self._content()
        return Restrictions(
            gated=frozenset(content.get("gated", ())),
            denied=frozenset(content.get("denied", ())),
            private=frozenset(content.get("private", ())),
        )

    def take(self, method: str, path: str, asked: str | None = None) -> Fault:
        """The fault for this request; using it counts towards its rule's `count`. asked: its Range header."""
        for rule in self._content().get("rules", ()):
            knobs = dict(rule)
            match, wanted, count = knobs.pop("match", ""), knobs.pop("method", None), knobs.pop("count", None)
            if (wanted not in (None, method)) or not re.search(match, path):
                continue
            if "flip_bit" in knobs and not _covers(asked, knobs["flip_bit"]):
                continue
            key = json.dumps(rule, sort_keys=True)
            if count is not None and self.used[key] >= count:
                continue
            self.used[key] += 1
            return Fault(**knobs)
        return SOUND


def _covers(asked: str | None, offset: int) -> bool:
    """Is the byte at `offset` in a range such as `bytes=0-99` or `bytes=5-`?"""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
    return found is None or (int(found[1]) <= offset and (not found[2] or offset <= int(found[2])))
