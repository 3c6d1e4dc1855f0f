"""Nodes for pending pods: bought, registered, initialized, refused, given back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from local.client.kinds import EC2NODECLASSES, EVENTS, NODECLAIMS, NODEPOOLS, NODES, PODS, Obj
from local.client.objects import condition
from tests.support.cluster import Cluster

_numbers = itertools.count(1)
NEURON = "aws.amazon.com/neuron"


class Pool:
    """One NodePool of a test, selected by a label of its own."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def pod(
        self, namespace: str, name: str, chips: int = 1, command: str = "sleep 600", **more: object
    ) -> None:
        self.cluster.pod(
            namespace,
            name,
            ["sh", "-c", command],
            nodeSelector={"karpenter.sh/nodepool": self.name},
            tolerations=[{"key": NEURON, "operator": "Exists"}],
            container={"resources": {"requests": {NEURON: str(chips)}, "limits": {NEURON: str(chips)}}},
            **more,
        )

    def claims(self) -> list[Obj]:
        return self.cluster.list(NODECLAIMS, labelSelector=f"karpenter.sh/nodepool={self.name}")

    def claim(self, kind: str, status: str, reason: str = "") -> Obj:
        """The pool's claim once this condition is so."""

        def check() -> Obj | None:
            for each in self.claims():
                found = condition(each, kind)
                if found and found["status"] == status and reason in ("", found["reason"]):
                    return each
            return None

        found: Obj = self.cluster.until(f"{kind}={status} {reason}", check)
        return found

    def faults(self, **knobs: object) -> None:
        notes = {"local.trainyard.dev/faults": json.dumps(knobs)}
        self.cluster.patch(NODEPOOLS, None, self.name, {"metadata": {"annotations": notes}})


def make_pool(cluster: Cluster, name: str, **more: object) -> Pool:
    spec = {
        "disruption": {
            "consolidationPolicy": "WhenEmpty",
            "consolidateAfter": "Never",
            **more.pop("disruption", {}),
        },  # type: ignore[dict-item]
        "limits": {NEURON: "32"},
        "template": {
            "metadata": {"labels": {"team": "ml"}},
            "spec": {
                "nodeClassRef": {
                    "group": "karpenter.k8s.aws",
                    "kind": "EC2NodeClass",
                    "name": "neuron-tests",
                },
                "taints": [{"key": NEURON, "value": "true", "effect": "NoSchedule"}],
                "requirements": [
                    {"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["trn2"]},
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand", "spot"]},
                ],
            },
        },
        **more,
    }
    cluster.create(NODEPOOLS, {"metadata": {"name": name}, "spec": spec})

    def ready() -> bool:
        pool = cluster.find(NODEPOOLS, None, name) or {}
        return (condition(pool, "Ready") or {}).get("status") == "True"

    cluster.until(f"pool {name} ready", ready)
    return Pool(cluster, name)


@pytest.fixture(scope="module")
def node_class(cluster: Cluster) -> str:
    spec = {
        "amiFamily": "AL2023",
        "amiSelectorTerms": [{"alias": "al2023@v20261101"}],
        "subnetSelectorTerms": [{"tags": {"discovery": "tests"}}],
        "securityGroupSelectorTerms": [{"tags": {"discovery": "tests"}}],
        "role": "node",
    }
    cluster.create(EC2NODECLASSES, {"metadata": {"name": "neuron-tests"}, "spec": spec})
    return "neuron-tests"


@pytest.fixture
def pool(cluster: Cluster, node_class: str) -> Iterator[Pool]:
    made = make_pool(cluster, f"pool-{next(_numbers)}")
    yield made
    cluster.delete(NODEPOOLS, None, made.name)


def test_a_pending_pod_gets_the_smallest_node_that_holds_it_and_its_devices(
    cluster: Cluster, namespace: str, pool: Pool
) -> None:
    pool.pod(namespace, "one", command="echo $LOCAL_SILICON; sleep 600")
    claim = pool.claim("Initialized", "True")
    assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "trn2.3xlarge"
    assert [condition(claim, kind)["status"] for kind in ("Launched", "Registered", "Ready")] == ["True"] * 3  # type: ignore[index]
    assert claim["status"]["providerID"].startswith("aws:///us-east-2b/i-")
    pod = cluster.phase(namespace, "one", "Running")
    assert pod["spec"]["nodeName"] == claim["status"]["nodeName"]
    node = cluster.find(NODES, None, pod["spec"]["nodeName"]) or {}
    assert node["spec"]["providerID"] == claim["status"]["providerID"]
    assert node["spec"]["taints"] == [{"key": NEURON, "value": "true", "effect": "NoSchedule"}]
    assert node["metadata"]["labels"]["team"] == "ml"
    assert node["status"]["allocatable"][NEURON] == "1"
    cluster.event(
        namespace, "one", "Nominated", f"Pod should schedule on: nodeclaim/{claim['metadata']['name']}"
    )
    seen = cluster.until("log", lambda: cluster.kubectl("-n", namespace, "logs", "one"))
    assert json.loads(seen)["devices"] == [0]

    def counted() -> bool:
        status = (cluster.find(NODEPOOLS, None, pool.name) or {})["status"]
        return (status.get("nodes"), (status.get("resources") or {}).get(NEURON)) == (1, "1")

    cluster.until("the pool's count", counted)


def test_pods_share_a_large_node_and_hold_different_devices(
    cluster: Cluster, namespace: str, pool: Pool
) -> None:
    pool.faults(launch_seconds=0.6)
    for name in ("a", "b"):
        pool.pod(namespace, name, chips=6, command="echo $LOCAL_SILICON; sleep 600")
    devices: list[int] = []
    nodes = set()
    for name in ("a", "b"):
        pod = cluster.phase(namespace, name, "Running")
        nodes.add(pod["spec"]["nodeName"])
        log = cluster.until("log", lambda name=name: cluster.kubectl("-n", namespace, "logs", name))
        devices += json.loads(log)["devices"]
    assert len(nodes) == 1
    assert sorted(devices) == list(range(12))


def test_limits_of_the_pool_keep_pods_pending_and_say_so(
    cluster: Cluster, namespace: str, pool: Pool
) -> None:
    body = {"spec": {"limits": {NEURON: "8"}}}
    cluster.patch(NODEPOOLS, None, pool.name, body)
    pool.pod(namespace, "large", chips=16)
    text = f'all available instance types exceed limits for nodepool: "{pool.name}"'
    assert text in cluster.event(namespace, "large", "FailedScheduling", "exceed limits")
    assert pool.claims() == []


def test_what_no_pool_offers_is_explained(cluster: Cluster, namespace: str, pool: Pool) -> None:
    cluster.pod(
        namespace,
        "intolerant",
        ["true"],
        nodeSelector={"karpenter.sh/nodepool": pool.name},
    )
    pool.pod(namespace, "huge", chips=64)
    text = cluster.event(namespace, "intolerant", "FailedScheduling", "did not tolerate taint")
    assert f'incompatible with nodepool "{pool.name}"' in text
    assert f"did not tolerate taint (taint={NEURON}=true:NoSchedule)" in text
    assert cluster.event(namespace, "huge", "FailedScheduling", "no instance type has enough resources")


def test_lack_of_capacity_is_an_event_and_the_claim_is_gone_then_tried_again(
    cluster: Cluster, namespace: str, pool: Pool
) -> None:
    pool.faults(insufficient_capacity=1)
    pool.pod(namespace, "waits")

    def said() -> list[str]:
        return [
            each["message"]
            for each in cluster.list(EVENTS, "default")
            if each["reason"] == "InsufficientCapacityError" and f"NodeClaim {pool.name}-" in each["message"]
        ]

    (text,) = cluster.until("InsufficientCapacityError", said)
    assert "InsufficientInstanceCapacity: We currently do not have sufficient trn2.3xlarge capacity" in text
    lost = text.split()[1]
    assert cluster.find(NODECLAIMS, None, lost) is None or cluster.until(
        "claim gone", lambda: cluster.find(NODECLAIMS, None, lost) is None
    )
    # After the back-off the same pod gets another claim.
    cluster.phase(namespace, "waits", "Running")
    assert [each["metadata"]["name"] for each in pool.claims()] != [lost]


def test_a_missing_device_plugin_keeps_the_claim_from_being_initialized(
    cluster: Cluster, namespace: str, pool: Pool
) -> None:
    pool.faults(device_plugin_missing=True)
    pool.pod(namespace, "blind")
    claim = pool.claim("Initialized", "Unknown", "ResourceNotRegistered")
    text = f'Resource "{NEURON}" was requested but not registered'
    assert (condition(claim, "Initialized") or {})["message"] == text
    assert (condition(claim, "Ready") or {})["status"] == "Unknown"


def test_a_machine_that_never_registers_is_said_to_be_missing(
    cluster: Cluster, namespace: str, pool: Pool
) -> None:
    pool.faults(never_register=True)
    pool.pod(namespace, "lonely")
    claim = pool.claim("Registered", "Unknown", "NodeNotFound")
    assert (condition(claim, "Launched") or {})["status"] == "True"


def test_an_empty_node_is_given_back_after_its_time(
    cluster: Cluster, namespace: str, node_class: str
) -> None:
    pool = make_pool(cluster, f"pool-{next(_numbers)}", disruption={"consolidateAfter": "0s"})
    # It stays until it was seen: an empty node is gone before a slow test looks.
    file = cluster.folder / f"{namespace}-seen"
    pool.pod(namespace, "short", command=f"until [ -e {file} ]; do sleep 0.05; done")
    claim = pool.claim("Registered", "True")
    node = claim["status"]["nodeName"]
    file.touch()
    cluster.until("claim gone", lambda: not pool.claims())
    assert cluster.find(NODES, None, node) is None
    cluster.delete(NODEPOOLS, None, pool.name)


def test_do_not_disrupt_keeps_an_empty_node(cluster: Cluster, namespace: str, node_class: str) -> None:
    pool = make_pool(cluster, f"pool-{next(_numbers)}")
    pool.pod(namespace, "short", command="true")
    claim = pool.claim("Initialized", "True")
    cluster.phase(namespace, "short", "Succeeded")
    name = claim["metadata"]["name"]
    cluster.patch(
        NODECLAIMS, None, name, {"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}}
    )
    cluster.patch(NODEPOOLS, None, pool.name, {"spec": {"disruption": {"consolidateAfter": "0s"}}})
    cluster.event(None, name, "DisruptionBlocked")
    assert pool.claims()
    cluster.delete(NODEPOOLS, None, pool.name)


def test_a_spot_interruption_drains_the_node_gracefully(cluster: Cluster, namespace: str, pool: Pool) -> None:
    up, file = (cluster.folder / f"{namespace}-{what}" for what in ("up", "drained"))
    script = f"trap 'touch {file}; exit 0' TERM; touch {up}; while :; do sleep 0.05; done"
    pool.pod(namespace, "evicted", command=script, terminationGracePeriodSeconds=120)
    pod = cluster.phase(namespace, "evicted", "Running")
    cluster.until("start", up.exists)
    (claim,) = pool.claims()
    notes = {"local.trainyard.dev/faults": json.dumps({"spot_interrupted": True})}
    cluster.patch(NODECLAIMS, None, claim["metadata"]["name"], {"metadata": {"annotations": notes}})
    cluster.event(None, claim["metadata"]["name"], "SpotInterrupted")
    cluster.until("pod gone", lambda: cluster.find(PODS, namespace, "evicted") is None)
    assert file.exists()
    cluster.until("node gone", lambda: cluster.find(NODES, None, pod["spec"]["nodeName"]) is None)
    cluster.until("claim gone", lambda: not pool.claims())


def test_a_deleted_node_takes_its_claim_along(cluster: Cluster, namespace: str, pool: Pool) -> None:
    pool.pod(namespace, "rider")
    node = cluster.phase(namespace, "rider", "Running")["spec"]["nodeName"]
    cluster.kubectl("delete", "node", node, "--wait=false")
    cluster.until("claim gone", lambda: not pool.claims())
    cluster.until("node gone", lambda: cluster.find(NODES, None, node) is None)
    cluster.until("pod gone", lambda: cluster.find(PODS, namespace, "rider") is None)


def test_a_pool_without_its_node_class_is_not_ready(cluster: Cluster) -> None:
    template = {
        "spec": {
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "absent"},
            "requirements": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}],
        }
    }
    spec = {"template": template, "disruption": {"consolidateAfter": "30s"}}
    cluster.create(NODEPOOLS, {"metadata": {"name": "classless"}, "spec": spec})

    def not_ready() -> bool:
        found = cluster.find(NODEPOOLS, None, "classless") or {}
        ready, node_class = condition(found, "Ready"), condition(found, "NodeClassReady")
        return bool(
            ready
            and ready["status"] == "False"
            and node_class
            and node_class["reason"] == "NodeClassNotFound"
        )

    cluster.until("not ready", not_ready)
    cluster.delete(NODEPOOLS, None, "classless")
