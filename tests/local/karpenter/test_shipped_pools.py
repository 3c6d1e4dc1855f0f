"""The pools of deploy/cluster at work: the local overlay's, as Karpenter's stand-in buys from them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.client.kinds import EC2NODECLASSES, NODEPOOLS, NODES, PODS
from tests.support.cluster import Cluster
from tests.support.manifests import of_kind, rendered
from trainyard.kube.pods import placement


@pytest.fixture(scope="module")
def shipped(cluster: Cluster) -> Iterator[None]:
    objects = rendered("overlays/local")
    kinds = ((EC2NODECLASSES, "EC2NodeClass"), (NODEPOOLS, "NodePool"))
    made = [(kind, obj) for kind, name in kinds for obj in of_kind(objects, name).values()]
    for kind, obj in made:
        cluster.create(kind, obj)
    yield
    for kind, obj in reversed(made):
        cluster.delete(kind, None, obj["metadata"]["name"])


@pytest.mark.parametrize(
    ("pool", "instance_type", "chips", "paid"),
    [
        ("neuron-inf2", "inf2.xlarge", 1, "spot"),
        ("neuron-trn1", "trn1.32xlarge", 16, "spot"),
        ("neuron-trn2", "trn2.48xlarge", 16, "reserved"),
    ],
)
@pytest.mark.usefixtures("shipped")
def test_a_pod_gets_the_node_that_it_names_from_its_pool(
    cluster: Cluster, namespace: str, pool: str, instance_type: str, chips: int, paid: str
) -> None:
    neuron = {"aws.amazon.com/neuron": str(chips)}
    cluster.pod(
        namespace,
        "asks",
        ["true"],
        container={"resources": {"limits": neuron, "requests": neuron}},
        **placement(instance_type, pool),
    )

    cluster.phase(namespace, "asks", "Succeeded")

    node = (cluster.find(PODS, namespace, "asks") or {})["spec"]["nodeName"]
    labels = (cluster.find(NODES, None, node) or {})["metadata"]["labels"]
    assert labels["node.kubernetes.io/instance-type"] == instance_type
    assert labels["karpenter.sh/nodepool"] == pool
    assert labels["karpenter.sh/capacity-type"] == paid
