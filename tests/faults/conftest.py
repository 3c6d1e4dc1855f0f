"""The servers of tests/local, for tests that break them on purpose."""

from __future__ import annotations

import pytest

from tests.support.hub import hub, hub_process
from tests.support.seaweed import bucket, s3_server, store
from tests.support.shaky_store import faulty, shaky
from tests.support.victims import SMALLEST_PART
from trainyard.jobs import mirror
from trainyard.store import transfer

__all__ = ["bucket", "faulty", "hub", "hub_process", "s3_server", "shaky", "store"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest that S3 takes: several of them make an upload in little time."""
    monkeypatch.setattr(mirror, "PART_SIZE", SMALLEST_PART)
    monkeypatch.setattr(transfer, "PART_SIZE", SMALLEST_PART)
