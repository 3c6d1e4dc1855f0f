"""Rows enough for a plot, out of any number of them, without holding or reading all."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Iterable

from trainyard.bench.samples import Sample

# Keys of a row that was written by us; inside a string their quotes would be escaped.
_ARM = re.compile(rb'"arm": ?"((?:[^"\\]|\\.)*)"')
_OK = re.compile(rb'"ok": ?true')


class Thinned:
    """Every nth success and every mth failure of each arm: n and m grow as rows come."""

    def __init__(self, most: int) -> None:
        self._good, self._bad = _Every(most), _Every(max(1, most // 4))

    def add(self, line: bytes) -> None:
        arm = _ARM.search(line)
        (self._good if _OK.search(line) else self._bad).add(arm[1] if arm else b"", line)

    def add_packed(self, data: bytes) -> None:
        """`samples.ndjson.gz`."""
        with gzip.open(io.BytesIO(data)) as lines:
            self.add_all(lines)

    def add_all(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if line.endswith(b"\n"):  # a torn one has none
                self.add(line)

    def samples(self) -> list[Sample]:
        """In the order in which they came, failures after successes."""
        return [Sample.from_row(json.loads(line)) for line in (*self._good.lines, *self._bad.lines)]


class _Every:
    def __init__(self, most: int) -> None:
        self._most, self._stride = most, 1
        self._seen: Counter[bytes] = Counter()
        self._kept: list[tuple[int, bytes]] = []

    def add(self, arm: bytes, line: bytes) -> None:
        number = self._seen[arm]
        self._seen[arm] += 1
        if number % self._stride:
            return
        self._kept.append((number, line))
        if len(self._kept) > self._most:
            self._stride *= 2
            self._kept = [(number, line) for number, line in self._kept if not number % self._stride]

    @property
    def lines(self) -> list[bytes]:
        return [line for _, line in self._kept]
