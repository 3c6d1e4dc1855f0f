"""Real servers for the tests below this folder, started once a session."""

from __future__ import annotations

from tests.support.cluster import cluster
from tests.support.hub import hub, hub_process
from tests.support.seaweed import bucket, s3_server

__all__ = ["bucket", "cluster", "hub", "hub_process", "s3_server"]
