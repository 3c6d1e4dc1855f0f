"""What a fetch moves, by the servers' own counts, and what one changed shard of eight costs."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.model import Bar, Benchmark, Figure, Options
from benchmarks.moving import REPO, SHARDS, model, shard, yard
from benchmarks.statistics import spread

# Ratios of bytes do not depend on how many there are: this is a size that `make bench` has time for.
SHARD = 32 << 20
ROUNDS = 2
# In a fresh clone Python would keep what it has compiled of the job, and that would be counted as written.
UNKEPT = {"PYTHONDONTWRITEBYTECODE": "1"}
ONCE, NONE, CHANGED = Bar("<=", 1.005), Bar("<=", 0.0), Bar("<=", 1.02)


def measure(options: Options) -> Sequence[Figure]:
    total = SHARD * SHARDS
    source, arrived, written, read_back, changed, changed_source = [], [], [], [], [], []
    with yard(options) as servers:
        for number in range(options.pairs or ROUNDS):
            folder = model(options.scratch / f"model-{number}", SHARDS, SHARD, seed=number)
            revision = servers.hub.publish(REPO, folder)
            with servers.s3.bucket(f"bytes-{number}") as bucket:
                line = servers.hub.lines()
                run, _ = servers.fetch(bucket, revision, **UNKEPT)
                received, sent = servers.s3.traffic(bucket)
                source.append(servers.hub.sent(line) / total)
                arrived.append(received / total)
                written.append(run.written / total)
                read_back.append(sent / total)
                shard(folder / f"model-00003-of-{SHARDS:05}.safetensors", SHARD, 500 + number)
                again, line = servers.hub.publish(REPO, folder), servers.hub.lines()
                servers.fetch(bucket, again, **UNKEPT)
                changed.append((servers.s3.traffic(bucket)[0] - received) / SHARD)
                changed_source.append(servers.hub.sent(line) / SHARD)
    return (
        Figure("source bytes", "ratio", spread(source), ONCE),
        Figure("bytes that S3 received", "ratio", spread(arrived), ONCE),
        Figure("bytes written to disk", "ratio", spread(written), NONE),
        Figure("bytes read back from S3", "ratio", spread(read_back), NONE),
        Figure("one changed shard: bytes to S3", "ratio", spread(changed), CHANGED),
        Figure("one changed shard: source bytes", "ratio", spread(changed_source), CHANGED),
    )


BENCHMARK = Benchmark(
    name="fetch-bytes",
    claim="Every byte is read once and sent once, none touches a disk, and shards that are there stay there.",
    peer="the bytes of the model, as the Hub's access log and SeaweedFS's metrics count them",
    seconds=45,
    measure=measure,
)
