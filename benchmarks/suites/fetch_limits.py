"""Hub to S3 beside what limits it: bare PUT requests of the same bytes, and one core's SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.alternating import alternate
from benchmarks.model import Bar, Benchmark, Figure, Options
from benchmarks.moving import BOTO3_UPLOAD, MIB, PUT_LOOP, REPO, SHA256, SHARDS, Run, model, yard
from benchmarks.statistics import Pair, ratios, spread

PAIRS = 5
PART = 16 << 20
SPEED = Bar(">=", 0.9)
CPU = Bar("<=", 0.5)


def measure(options: Options) -> Sequence[Figure]:
    total = MIB << 20
    folder = model(options.scratch / "model", SHARDS, total // SHARDS)
    with yard(options) as servers:
        revision = servers.hub.publish(REPO, folder)

        def fetched() -> Run:
            with servers.s3.bucket("fetched") as bucket:
                return servers.fetch(bucket, revision)[0]

        def looped() -> Run:
            with servers.s3.bucket("looped") as bucket:
                return servers.python(PUT_LOOP, bucket, total, PART, 8)

        def uploaded() -> Run:
            with servers.s3.bucket("uploaded") as bucket:
                return servers.python(BOTO3_UPLOAD, bucket, folder)

        sides = (fetched, looped, partial(servers.python, SHA256, total), uploaded)
        rounds = alternate(sides, options.pairs or PAIRS)
    limits = [Pair(max(loop.seconds, sha.seconds), fetch.seconds) for fetch, loop, sha, _ in rounds]
    cpu = [Pair(fetch.cpu, boto3.cpu) for fetch, _, _, boto3 in rounds]
    return (
        Figure("of the slowest limit's speed", "ratio", ratios(limits), SPEED),
        Figure("processor time, of boto3 and a SHA-256", "ratio", ratios(cpu), CPU),
        *(
            Figure(name, "s", spread([round_[index].seconds for round_ in rounds]))
            for index, name in enumerate(("fetch", "bare PUT loop", "one core's SHA-256", "boto3 upload"))
        ),
        Figure("fetch: processor time", "s", spread([pair.ours for pair in cpu])),
        Figure("boto3 upload and SHA-256: processor time", "s", spread([pair.peer for pair in cpu])),
    )


BENCHMARK = Benchmark(
    name="fetch-limits",
    claim="Hub to S3 runs at nearly the speed of bare PUT requests, at half of boto3's processor time.",
    peer="a loop of bare PUT requests, one core's SHA-256, boto3's upload_file and hashlib",
    seconds=900,
    measure=measure,
)
