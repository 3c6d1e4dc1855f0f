"""Real servers for the tests below this folder, started once a session."""

from __future__ import annotations

from tests.support.cluster import cluster
from tests.support.hub import hub, hub_process
from tests.support.seaweed import bucket, s3_server, store
from tests.support.world import bare_server, kube, revisions, space, world

__all__ = [
    "bare_server",
    "bucket",
    "cluster",
    "hub",
    "hub_process",
    "kube",
    "revisions",
    "s3_server",
    "space",
    "store",
    "world",
]
