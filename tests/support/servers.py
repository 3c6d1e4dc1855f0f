"""A server set as small as it can be."""

from __future__ import annotations

from trainyard.kube.servers import ServerSet
from trainyard.neuron.engines.base import Command


def server_set(namespace: str, release: str = "m-1", token: int = 1) -> ServerSet:
    return ServerSet(
        model="m",
        release=release,
        namespace=namespace,
        service_account="trainyard-serve",
        served_name="m",
        image="server:1",
        jobs_image="trainyard-jobs:1",
        command=Command(("serve",), {}),
        materialise_job={},
        replicas=1,
        chips=1,
        instance_type="trn2.48xlarge",
        nodepool="neuron",
        cpu=1,
        memory="1Gi",
        grace_seconds=5,
        running_metrics=("vllm:num_requests_running",),
        node_cache_claim="",
        ready_deadline_seconds=60,
        annotations={},
        lease_token=token,
    )
