"""What the tests below this folder share: their bucket, and patience with a busy machine."""

from __future__ import annotations

import pytest

from tests.support.seaweed import S3Server
from trainyard.bench.workload import Workload
from trainyard.store.objects import Objects


@pytest.fixture
def store(store: Objects, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Objects:
    """Jobs of this process reach it by their environment, as in a pod."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load generator that gets no core beside other tests makes no figures invalid, and no command fail.

    What invalid means is tested with readings of known size (tests/unit/bench).
    """
    allowed = {"max_loop_lag_seconds": 60.0, "max_cpu_share": 60.0}
    defaults = Workload.__init__.__kwdefaults__
    assert set(allowed) <= set(defaults)
    monkeypatch.setattr(Workload.__init__, "__kwdefaults__", defaults | allowed)
