"""Fixtures of a bucket, of a proxy before S3 that fails on purpose, and of the bucket seen through it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faulty_s3 import Faulty, faulty_s3
from tests.support.seaweed import S3Server
from trainyard.store.objects import Objects


@pytest.fixture
def faulty(s3_server: S3Server) -> Iterator[Faulty]:
    with faulty_s3(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def shaky(faulty: Faulty, s3_server: S3Server, bucket: str) -> Objects:
    client = s3_server.client(endpoint_url=faulty.endpoint, attempts=3)
    return Objects(client, bucket)
