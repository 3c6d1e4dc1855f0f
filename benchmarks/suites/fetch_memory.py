"""Peak memory of the fetch job, whatever the model's size."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from benchmarks.model import Bar, Benchmark, Figure, Options
from benchmarks.moving import MIB, REPO, SHARDS, model, yard
from benchmarks.statistics import spread

MOST = Bar("<=", 300.0)
SAME = Bar("<=", 1.1)


def measure(options: Options) -> Sequence[Figure]:
    peaks: dict[int, list[float]] = {}
    with yard(options) as servers:
        # 1 and 8 GiB, unless TRAINYARD_BENCH_MIB says less.
        for size in (MIB // 2, MIB * 4):
            folder = model(options.scratch / "model", SHARDS, (size << 20) // SHARDS, seed=size)
            revision = servers.hub.publish(REPO, folder)
            shutil.rmtree(folder)
            for number in range(options.pairs or 1):
                with servers.s3.bucket(f"memory-{size}-{number}") as bucket:
                    run, _ = servers.fetch(bucket, revision)
                peaks.setdefault(size, []).append(run.peak / (1 << 20))
                options.say(f"{size} MiB: {run.peak >> 20} MiB at most, {run.seconds:.1f} s")
    (small, large) = peaks
    pairs = zip(peaks[large], peaks[small], strict=True)
    return (
        Figure(f"peak at {large} MiB", "MiB", spread(peaks[large]), MOST),
        Figure(f"peak at {small} MiB", "MiB", spread(peaks[small]), MOST),
        Figure("larger against smaller", "ratio", spread([one / other for one, other in pairs]), SAME),
    )


BENCHMARK = Benchmark(
    name="fetch-memory",
    claim="A fetch takes the same memory for a model of 1 GiB and of 8 GiB.",
    peer="the same job with a model of an eighth of the size",
    seconds=240,
    measure=measure,
)
