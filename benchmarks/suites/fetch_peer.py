"""Hub to S3 beside the usual three steps: download to disk, check, upload."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from benchmarks.alternating import alternate
from benchmarks.model import Bar, Benchmark, Figure, Options, compared
from benchmarks.moving import MIB, REPO, SHARDS, measured, model, tool, yard
from benchmarks.statistics import Pair

PAIRS = 5
WALL = Bar("<=", 0.75)
PEER = "hf download, openssl dgst -sha256, s5cmd cp"


def measure(options: Options) -> Sequence[Figure]:
    hf, openssl, s5cmd = tool("hf"), tool("openssl"), tool("s5cmd")
    folder = model(options.scratch / "model", SHARDS, (MIB << 20) // SHARDS)
    with yard(options) as servers:
        revision = servers.hub.publish(REPO, folder)

        def ours() -> float:
            with servers.s3.bucket("ours") as bucket:
                return servers.fetch(bucket, revision)[0].seconds

        def steps() -> float:
            target = options.scratch / "downloaded"
            environment = servers.environment(
                HF_ENDPOINT=servers.hub.endpoint, HF_HOME=str(options.scratch / "hf"), HF_HUB_DISABLE_XET="1"
            )
            with servers.s3.bucket("steps") as bucket:
                took = measured(
                    [hf, "download", REPO, "--revision", revision, "--local-dir", str(target)], environment
                ).seconds
                files = [str(path) for path in sorted(target.glob("*.safetensors"))]
                took += measured([openssl, "dgst", "-sha256", *files], environment).seconds
                upload = [s5cmd, "cp", f"{target}/*.safetensors", f"s3://{bucket}/"]
                took += measured(upload, environment).seconds
            shutil.rmtree(target)
            return took

        rounds = alternate((ours, steps), options.pairs or PAIRS)
    return compared("Hub to S3", "s", PEER, [Pair(*round_) for round_ in rounds], WALL)


BENCHMARK = Benchmark(
    name="fetch-peer",
    claim="One verified pass from the Hub to S3 takes less time than download, check and upload.",
    peer=PEER,
    seconds=900,
    measure=measure,
)
