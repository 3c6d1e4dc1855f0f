"""The bucket of the tests below this folder."""

from __future__ import annotations

import pytest

from tests.support.seaweed import S3Server
from trainyard.store.objects import Objects


@pytest.fixture
def store(store: Objects, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Objects:
    """Jobs of this process reach it by their environment, as in a pod."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return store
