"""Raw rows on disk, of one or several machines: in the order of their start, read only when asked for.

A long test has millions of rows of a kilobyte or two. Kept of each is when it started and where it lies.
"""

from __future__ import annotations

import gzip
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from trainyard.bench.samples import Sample

_STARTED = re.compile(rb'"started": ?([-+0-9.eE]+)')  # never inside a string: its quotes would be escaped
PACK_LEVEL = 5  # level 9 takes four times as long, for a tenth less


class Outline(Sample):
    """A sample that forgot its chunks but for the first and the last: no gaps, and the same `tpot`."""

    def gaps(self) -> list[float]:
        return []


def moved(line: bytes, seconds: float) -> bytes:
    """The row with its `started` on another clock."""
    return _STARTED.sub(lambda found: b'"started":%.7f' % (float(found[1]) + seconds), line, count=1)


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
    """All complete rows of the files. Raises ValueError for a line that is no row."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self._starts, self._places, self._owners = array("d"), array("Q"), array("H")
        for owner, path in enumerate(self._files):
            self._index(owner, path)
        self._order = array("L", sorted(range(len(self._starts)), key=self._starts.__getitem__))

    def _index(self, owner: int, path: Path) -> None:
        place = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # torn: its writer was killed
                found = _STARTED.search(line)
                if found is None:
                    raise ValueError(f"{path.name}, line {number} is no row: {line[:80]!r}")
                self._starts.append(float(found[1]))
                self._places.append(place)
                self._owners.append(owner)
                place += len(line)

    def __len__(self) -> int:
        return len(self._order)

    def lines(self) -> Iterator[bytes]:
        files = [path.open("rb") for path in self._files]
        try:
            for at in self._order:
                file = files[self._owners[at]]
                file.seek(self._places[at])
                yield file.readline()
        finally:
            for file in files:
                file.close()

    def samples(self) -> Iterator[Sample]:
        for line in self.lines():
            yield Sample.from_row(json.loads(line))

    def held(self, *, detailed: bool = True) -> list[Sample]:
        return compact(self.lines(), detailed=detailed)

    def pack(self, target: Path) -> None:
        """Writes `samples.ndjson.gz`. The same rows give the same bytes."""
        with target.open("wb") as raw, gzip.GzipFile("", "wb", PACK_LEVEL, raw, mtime=0) as packed:
            packed.writelines(self.lines())


def compact(lines: Iterable[bytes], *, detailed: bool = True) -> list[Sample]:
    """All samples at once, in a quarter of the memory: for reading only, `to_row` is not JSON's.

    detailed: else they are `Outline`s, which take half of that.
    """
    texts: dict[str, str] = {}
    tokens: dict[tuple[int, ...], tuple[int, ...]] = {}
    kind, samples = Sample if detailed else Outline, []
    for line in lines:
        row = json.loads(line)
        row |= {key: texts.setdefault(text, text) for key, text in row.items() if type(text) is str}
        times, counts = row["chunk_times"], tuple(row["chunk_tokens"])
        if not detailed and len(times) > 2:
            times, counts = [times[0], times[-1]], (counts[0], sum(counts[1:]))
        sample = kind.from_row({**row, "chunk_times": (), "chunk_tokens": ()})
        kept = vars(sample)  # a frozen dataclass, but nobody has seen it yet
        kept["chunk_times"], kept["chunk_tokens"] = array("d", times), tokens.setdefault(counts, counts)
        samples.append(sample)
    return samples
