"""A lease's holder, as a real process, is stopped across the lease's end, between its last look and write.

When it wakes up it can change nothing: not its record, not the channel, not the route."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cluster import Cluster as Server
from tests.support.paused_holder import HOLDER, MODEL
from tests.support.seaweed import S3Server
from trainyard.errors import LeaseHeld
from trainyard.kube.cluster import Cluster
from trainyard.kube.traffic import set_weights, weights_of
from trainyard.settings import Settings
from trainyard.stages.context import Context
from trainyard.store.leases import Lease
from trainyard.store.objects import Objects

REPOSITORY = Path(__file__).resolve().parents[3]
TTL = 1.0


def take_over(ctx: Context) -> Lease:
    while True:
        try:
            return ctx.leases.acquire(MODEL, "release-b", 60)
        except LeaseHeld:
            time.sleep(0.05)


@pytest.mark.parametrize("what", ["record", "channel", "route", "first route"])
def test_a_holder_that_was_paused_across_the_expiry_can_change_nothing(
    what: str, s3_server: S3Server, bucket: str, bare_server: Server, kube: Cluster, space: str
) -> None:
    settings = Settings(bucket=bucket, serving_namespace=space)
    ctx = Context(settings, Objects(s3_server.client(), bucket), kube, lambda: None)  # type: ignore[arg-type, return-value]
    ctx.ledger.create(MODEL, HOLDER, {"schema": 1, "state": "running"})
    ctx.channels.move(MODEL, "stable-1", 0)
    before = {} if what == "first route" else {"stable-1": 100}
    if before:
        set_weights(kube, model=MODEL, namespace=space, gateway="g", gateway_namespace="g",
                    weights=before, token=0)  # fmt: skip
    given = {"s3": s3_server.endpoint, "bucket": bucket, "api": bare_server.url, "namespace": space,
             "certificate": str(bare_server.certificate), "ttl": TTL, "what": what}  # fmt: skip
    holder = subprocess.Popen(
        [sys.executable, "-m", "tests.support.paused_holder", json.dumps(given)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'include'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith("stopping")
        _, status = os.waitpid(holder.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        winner = take_over(ctx)  # the winner has only taken the lease; it has changed nothing yet
        holder.send_signal(signal.SIGCONT)
        told = json.loads(holder.stdout.readline())
    finally:
        holder.kill()
        holder.wait()
    assert told["error"] == "LeaseLost", told
    assert ctx.ledger.read(MODEL, HOLDER).document["state"] == "running"
    assert ctx.channels.read(MODEL).stable == "stable-1"
    assert weights_of(kube.get("HTTPRoute", MODEL, space)) == before
    # And the winner can.
    ctx.leases.check(winner)
    assert ctx.channels.move(MODEL, "release-b", winner.token).stable == "release-b"
    set_weights(kube, model=MODEL, namespace=space, gateway="g", gateway_namespace="g",
                weights={"release-b": 100}, token=winner.token)  # fmt: skip
