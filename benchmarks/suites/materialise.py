"""A bundle of eight large files from S3 to disk, verified, beside s5cmd and then OpenSSL."""

from __future__ import annotations

import os
from collections.abc import Sequence

from benchmarks.alternating import alternate
from benchmarks.model import Bar, Benchmark, Figure, Options, compared
from benchmarks.moving import Run
from benchmarks.statistics import Pair, spread
from benchmarks.trees import check, together, yard

PAIRS = 5
FILES = 8
MIB = int(os.environ.get("TRAINYARD_BENCH_MIB", "2048"))
WALL = Bar("<=", 1.0)
PEER = "s5cmd cp, then openssl dgst -sha256"


def measure(options: Options) -> Sequence[Figure]:
    with yard(options) as place, place.s3.bucket("materialise") as bucket:
        made = options.scratch / "made"
        made.mkdir()
        for number in range(FILES):
            with (made / f"shard-{number}").open("wb") as file:
                for _ in range(MIB // FILES):
                    file.write(os.urandom(1 << 20))
        place.publish(bucket, made)
        place.copy(f"{made}/*", f"s3://{bucket}/peer/")

        def ours() -> Run:
            with place.folder() as into:
                run = place.materialise(bucket, into)
                check(into, FILES)
            return _said(options, "materialise", run)

        def peer() -> Run:
            with place.folder() as into:
                run = place.copy(f"s3://{bucket}/peer/*", f"{into}/")
                run = together(run, place.digests(into))
                check(into, FILES)
            return _said(options, "s5cmd, openssl", run)

        rounds = alternate([ours, peer], options.pairs or PAIRS)
    wall = [Pair(mine.seconds, theirs.seconds) for mine, theirs in rounds]
    cpu = [Pair(mine.cpu, theirs.cpu) for mine, theirs in rounds]
    peak = Figure("most memory", "MiB", spread([mine.peak / (1 << 20) for mine, _ in rounds]))
    return [
        *compared("wall time", "s", "s5cmd, openssl", wall, WALL),
        *compared("processor time", "s", "s5cmd, openssl", cpu, None),
        peak,
    ]


def _said(options: Options, what: str, run: Run) -> Run:
    options.say(f"{what}: {run.seconds:.2f} s, {run.cpu:.2f} s of processor time")
    return run


BENCHMARK = Benchmark(
    name="materialise",
    claim="A verified bundle is on a pod's disk no later than an unverified copy that is then hashed.",
    peer=PEER,
    seconds=150,
    measure=measure,
)
