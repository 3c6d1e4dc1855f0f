"""Run by a test in a process of its own: takes a model's lease, begins a change, and stops itself (SIGSTOP)
between its last look and its write. Who started it lets it go on (SIGCONT) when it pleases.

    python -m tests.support.paused_holder '{"s3": ..., "bucket": ..., "api": ..., "certificate": ..., ...}'

Prints a line `stopping WHAT` before the stop, and at the end one line of JSON: what became of the change.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.support.seaweed import S3Server
from trainyard.errors import TrainyardError
from trainyard.kube.cluster import Cluster
from trainyard.kube.traffic import set_weights
from trainyard.settings import Settings
from trainyard.stages.context import Context
from trainyard.store.objects import Objects

MODEL, HOLDER = "tiny", "release-a"


def stop(what: str) -> None:
    print(f"stopping {what}", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


class StoppingObjects(Objects):
    """Stops right before the first conditional write to `key`."""

    key = ""

    def replace(self, key: str, body: bytes, etag: str) -> str:
        if key == self.key:
            StoppingObjects.key = ""
            stop(key)
        return super().replace(key, body, etag)


class StoppingCluster(Cluster):
    """Stops right before the first change of an object, or before it is made."""

    armed = False

    def merge(self, kind: str, name: str, namespace: str | None, body: dict[str, Any]) -> dict[str, Any]:
        if self.armed:
            self.armed = False
            stop(kind)
        return super().merge(kind, name, namespace, body)

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.armed:
            self.armed = False
            stop(body["kind"])
        return super().create(body)


def main() -> None:
    from tests.support.world import api_client

    given = json.loads(sys.argv[1])

    class Server:
        url, certificate = given["api"], Path(given["certificate"])

    objects = StoppingObjects(S3Server(given["s3"]).client(), given["bucket"])
    cluster = StoppingCluster(api_client(Server))  # type: ignore[arg-type]
    settings = Settings(bucket=given["bucket"], serving_namespace=given["namespace"])
    ctx = Context(settings, objects, cluster, lambda: None)  # type: ignore[arg-type, return-value]
    lease = ctx.leases.acquire(MODEL, HOLDER, given["ttl"])
    what = given["what"]

    def change() -> None:
        if what == "record":
            StoppingObjects.key = f"releases/{MODEL}/{HOLDER}.json"
            ctx.ledger.update(MODEL, HOLDER, lambda record: {**record, "state": "spoiled"}, lease.token)
        elif what == "channel":
            StoppingObjects.key = f"channels/{MODEL}.json"
            ctx.channels.move(MODEL, "spoiled", lease.token)
        else:
            cluster.armed = True
            set_weights(
                cluster,
                model=MODEL,
                namespace=given["namespace"],
                gateway="g",
                gateway_namespace="g",
                weights={"spoiled": 100},
                token=lease.token,
            )

    try:
        change()
    except TrainyardError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
    else:
        print(json.dumps({"error": None}), flush=True)


if __name__ == "__main__":
    main()
