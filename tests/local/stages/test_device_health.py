"""The stage `health` over a real pod of the local cluster, whose neuron-monitor is the shim."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.cluster import Cluster as Server
from tests.support.cluster import namespace
from tests.support.karpenter import create_pool
from tests.support.world import api_client
from trainyard.errors import DeviceUnhealthy, Inconclusive
from trainyard.kube.cluster import Cluster
from trainyard.settings import Settings
from trainyard.stages import health

__all__ = ["namespace"]
NEURON = "aws.amazon.com/neuron"
IMAGE = "public.ecr.aws/neuron/pytorch-inference-vllm-neuronx:0.24.0"


def server_pod(server: Server, namespace: str, pool: str, name: str, **knobs: Any) -> None:
    notes = {"local.trainyard.dev/faults": json.dumps(knobs)}
    server.pod(
        namespace,
        name,
        None,
        metadata={"labels": {"trainyard.dev/release": name}, "annotations": notes},
        nodeSelector={"karpenter.sh/nodepool": pool},
        tolerations=[{"key": NEURON, "operator": "Exists"}],
        container={
            "name": "server",
            "image": IMAGE,
            "command": ["sh", "-c", "sleep 600"],
            "resources": {"requests": {NEURON: "1"}, "limits": {NEURON: "1"}},
        },
    )


def test_errors_of_a_device_stop_a_release_and_silence_does_not_let_it_go_on(
    cluster: Server, namespace: str
) -> None:
    types = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["trn2.3xlarge"]}
    pool = create_pool(cluster, f"s-{namespace}", requirements=[types], limits={})
    server_pod(cluster, namespace, pool, "sick", ecc_uncorrected=3)
    server_pod(cluster, namespace, pool, "silent", monitor_silent=True)
    settings = Settings(serving_namespace=namespace)
    ctx: Any = SimpleNamespace(cluster=Cluster(api_client(cluster)), settings=settings)
    for name in ("sick", "silent"):
        cluster.phase(namespace, name, "Running")

    def release(name: str) -> Any:
        return SimpleNamespace(id=name, plan=SimpleNamespace(chips=1))

    def told() -> DeviceUnhealthy | None:
        """On a machine that has no time for it a monitor says nothing for its few seconds: ask again."""
        with pytest.raises((DeviceUnhealthy, Inconclusive)) as caught:
            health.run(ctx, release("sick"))
        return caught.value if isinstance(caught.value, DeviceUnhealthy) else None

    sick = cluster.until("a word of the sick device", told)
    assert re.search(r"sick: device 0: \d+ new uncorrected ECC error", str(sick))
    with pytest.raises(Inconclusive, match=r"silent: neuron-monitor gave no report in pod"):
        health.run(ctx, release("silent"))
    with pytest.raises(Inconclusive, match="No running server pod of gone"):
        health.run(ctx, release("gone"))
