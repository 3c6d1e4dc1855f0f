"""The servers of tests/local, for tests that break them on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faulty_s3 import Faulty, faulty_s3
from tests.support.hub import hub, hub_process
from tests.support.seaweed import S3Server, bucket, s3_server
from tests.support.victims import SMALLEST_PART
from trainyard.jobs import mirror
from trainyard.store import transfer
from trainyard.store.objects import Objects

__all__ = ["bucket", "hub", "hub_process", "s3_server"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest that S3 takes: several of them make an upload in little time."""
    monkeypatch.setattr(mirror, "PART_SIZE", SMALLEST_PART)
    monkeypatch.setattr(transfer, "PART_SIZE", SMALLEST_PART)


@pytest.fixture
def store(s3_server: S3Server, bucket: str) -> Objects:
    return Objects(s3_server.client(), bucket)


@pytest.fixture
def faulty(s3_server: S3Server) -> Iterator[Faulty]:
    with faulty_s3(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def shaky(faulty: Faulty, s3_server: S3Server, bucket: str) -> Objects:
    """The same bucket through a proxy that fails on purpose."""
    client = s3_server.client(endpoint_url=faulty.endpoint, attempts=3, read_seconds=10)
    return Objects(client, bucket)
