"""Families besides trn2: which nodes they get, and what a container finds on them."""

from __future__ import annotations

import json

import pytest

from local.client.instances import INSTANCE_TYPES, NEURON, NEURONCORE
from local.client.kinds import EC2NODECLASSES, NODECLAIMS, NODEPOOLS, NODES, Obj
from local.client.objects import condition
from local.karpenter.provisioning import plan
from tests.support.cluster import Cluster

from .test_planning import pod, pool

TAINT = {"key": NEURON, "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("name", "category", "generation", "chips", "cores"),
    [
        ("inf2.xlarge", "inf", "2", "1", "2"),
        ("trn1n.32xlarge", "trn", "1", "16", "32"),
        ("trn2.3xlarge", "trn", "2", "1", "4"),
        ("trn2u.48xlarge", "trn", "2", "16", "64"),
    ],
)
def test_a_type_has_the_labels_and_devices_of_its_family(
    name: str, category: str, generation: str, chips: str, cores: str
) -> None:
    kind = INSTANCE_TYPES[name]
    labels, capacity = kind.labels(), kind.capacity()
    prefix = "karpenter.k8s.aws/instance-"
    assert (labels[prefix + "category"], labels[prefix + "generation"]) == (category, generation)
    assert (str(capacity[NEURON]), str(capacity[NEURONCORE])) == (chips, cores)


def test_an_ultraserver_host_is_bought_by_its_name_only() -> None:
    pools = [pool("a", "trn2", "trn2u")]
    (draft,) = plan([pod("p", 16)], pools, [], [], {}, {}).buy
    assert draft.types[0].name == "trn2.48xlarge"
    named = pod("q", 16)
    named["spec"]["nodeSelector"] = {"node.kubernetes.io/instance-type": "trn2u.48xlarge"}
    (draft,) = plan([named], pools, [], [], {}, {}).buy
    assert [kind.name for kind in draft.types] == ["trn2u.48xlarge"]


def inf2_pool() -> Obj:
    return {
        "metadata": {"name": "families-inf2"},
        "spec": {
            "disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "Never"},
            "limits": {NEURON: "12"},
            "template": {
                "spec": {
                    "nodeClassRef": {
                        "group": "karpenter.k8s.aws",
                        "kind": "EC2NodeClass",
                        "name": "families",
                    },
                    "taints": [TAINT],
                    "requirements": [
                        {
                            "key": "node.kubernetes.io/instance-type",
                            "operator": "In",
                            "values": ["inf2.xlarge", "inf2.48xlarge"],
                        },
                        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                    ],
                }
            },
        },
    }


def test_a_pod_that_names_inf2_xlarge_gets_one_and_its_chip(cluster: Cluster, namespace: str) -> None:
    tags = [{"tags": {"discovery": "tests"}}]
    spec = {
        "amiFamily": "AL2023",
        "amiSelectorTerms": [{"alias": "al2023@v20261101"}],
        "subnetSelectorTerms": tags,
        "securityGroupSelectorTerms": tags,
        "role": "node",
    }
    cluster.create(EC2NODECLASSES, {"metadata": {"name": "families"}, "spec": spec})
    cluster.create(NODEPOOLS, inf2_pool())
    try:
        cluster.pod(
            namespace,
            "server",
            ["sh", "-c", "neuron-ls -j; echo; neuron-monitor | head -1; sleep 600"],
            nodeSelector={
                "karpenter.sh/nodepool": "families-inf2",
                "node.kubernetes.io/instance-type": "inf2.xlarge",
            },
            tolerations=[{"key": NEURON, "operator": "Exists"}],
            container={
                "image": "ghcr.io/huggingface/text-generation-inference:3.3.6-neuron",
                "resources": {
                    "requests": {NEURON: "1", "memory": "2Gi"},
                    "limits": {NEURON: "1", "memory": "2Gi"},
                },
            },
        )

        def bought() -> Obj | None:
            for each in cluster.list(NODECLAIMS, labelSelector="karpenter.sh/nodepool=families-inf2"):
                if (condition(each, "Initialized") or {}).get("status") == "True":
                    return each
            return None

        claim = cluster.until("a claim", bought)
        assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "inf2.xlarge"
        node = cluster.find(NODES, None, claim["status"]["nodeName"]) or {}
        allocatable = node["status"]["allocatable"]
        assert (allocatable[NEURON], allocatable[NEURONCORE], node["status"]["capacity"]["cpu"]) == (
            "1",
            "2",
            "4",
        )

        cluster.phase(namespace, "server", "Running")  # before, there is no log to ask for

        def listed() -> tuple[Obj, Obj] | None:
            said = cluster.kubectl("-n", namespace, "logs", "server")
            chips, _, report = said.partition("\n\n")
            return (json.loads(chips)[0], json.loads(report)) if report.strip() else None

        chip, report = cluster.until("the listing", listed)
        assert (chip["nc_count"], chip["memory_size"]) == (2, 32 * 2**30)
        hardware = report["neuron_hardware_info"]
        assert (hardware["neuron_device_type"], hardware["neuron_device_count"]) == ("inferentia", 1)
        assert report["instance_info"]["instance_type"] == "inf2.xlarge"
    finally:
        cluster.delete(NODEPOOLS, None, "families-inf2")
