"""Raw rows on disk, of one or several machines: in the order of their start, read only when asked for.

A long test has millions of rows of a kilobyte or two. Kept of each is when it started and where it lies.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.bench.samples import Sample

_STARTED = re.compile(rb'"started": ?([-+0-9.eE]+)')  # never inside a string: its quotes would be escaped
PACK_LEVEL = 5  # level 9 takes four times as long, for a tenth less


@dataclass(frozen=True)
class Part:
    """One file of NDJSON. shift: seconds to add to `started`, so that all parts are on one clock."""

    path: Path
    shift: float = 0.0


class Tail:
    """What is added to a file of lines."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def lines(self, most: int = 8 << 20) -> list[bytes]:
        """The complete ones that are new, of at most so many bytes; the others come next time."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read(most)
        data = data[: data.rfind(b"\n") + 1]
        self._at += len(data)
        return data.splitlines()


class Rows:
    """All complete rows of the parts. Raises ValueError for a line that is no row."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)
        self._starts, self._places = array("d"), array("Q")
        self._owners = array("H")
        for owner, part in enumerate(self._parts):
            self._index(owner, part)
        self._order = array("L", sorted(range(len(self._starts)), key=self._starts.__getitem__))

    def _index(self, owner: int, part: Part) -> None:
        place = 0
        with part.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # torn: its writer was killed
                found = _STARTED.search(line)
                if found is None:
                    raise ValueError(f"{part.path.name}, line {number} is no row: {line[:80]!r}")
                self._starts.append(float(found[1]) + part.shift)
                self._places.append(place)
                self._owners.append(owner)
                place += len(line)

    def __len__(self) -> int:
        return len(self._order)

    def _rows(self) -> Iterator[tuple[bytes, float]]:
        files = [part.path.open("rb") for part in self._parts]
        try:
            for at in self._order:
                file = files[self._owners[at]]
                file.seek(self._places[at])
                yield file.readline(), self._parts[self._owners[at]].shift
        finally:
            for file in files:
                file.close()

    def samples(self, *, compact: bool = False) -> Iterator[Sample]:
        """compact: times of chunks in an array, a quarter of the memory; such samples have no `to_row`."""
        shared: dict[tuple[int, ...], tuple[int, ...]] = {}
        for line, shift in self._rows():
            row = _moved(json.loads(line), shift)
            for key, value in row.items():
                if type(value) is str:
                    row[key] = sys.intern(value)
            sample = Sample.from_row(row)
            if compact:
                kept = vars(sample)  # a frozen dataclass, but nobody has seen it yet
                kept["chunk_times"] = array("d", sample.chunk_times)
                kept["chunk_tokens"] = shared.setdefault(sample.chunk_tokens, sample.chunk_tokens)
            yield sample

    def pack(self, target: Path) -> None:
        """Writes `samples.ndjson.gz`. The same rows give the same bytes."""
        with target.open("wb") as raw, gzip.GzipFile("", "wb", PACK_LEVEL, raw, mtime=0) as packed:
            for line, shift in self._rows():
                packed.write(line if not shift else _line(_moved(json.loads(line), shift)))


def _moved(row: dict[str, Any], shift: float) -> dict[str, Any]:
    if shift:
        row["started"] = round(row["started"] + shift, 9)
    return row


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"
