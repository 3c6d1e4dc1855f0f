"""Planning: which NodeClaims pending pods lead to. Pure."""

from __future__ import annotations

from decimal import Decimal

import pytest

from local.client.instances import INSTANCE_TYPES, NEURON
from local.client.kinds import Obj
from local.karpenter.claims import claim_from
from local.karpenter.provisioning import plan


def pool(name: str, *families: str, weight: int = 0, limits: Obj | None = None) -> Obj:
    requirement = {"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": list(families)}
    spec = {
        "weight": weight,
        "limits": limits or {},
        "template": {
            "spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "n"},
                "requirements": [requirement],
                "taints": [{"key": NEURON, "effect": "NoSchedule"}],
            }
        },
    }
    ready = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name, "uid": name}, "spec": spec, "status": {"conditions": ready}}


def pod(name: str, chips: int = 1, memory: str = "1Gi", **selector: str) -> Obj:
    requests = {NEURON: str(chips), "memory": memory}
    return {
        "metadata": {"name": name, "uid": name},
        "spec": {
            "containers": [{"resources": {"requests": requests}}],
            "tolerations": [{"operator": "Exists"}],
            "nodeSelector": {
                key.replace("__", "/").replace("_", "."): value for key, value in selector.items()
            },
        },
    }


@pytest.mark.parametrize(
    ("families", "chips", "memory", "expected"),
    [
        (("trn2",), 1, "8Gi", "trn2.3xlarge"),
        (("trn2",), 1, "256Gi", "trn2.48xlarge"),
        (("trn2",), 4, "8Gi", "trn2.48xlarge"),
        (("inf2", "trn1"), 1, "20Gi", "trn1.2xlarge"),
        (("inf2",), 6, "8Gi", "inf2.24xlarge"),
        (("inf2", "trn1", "trn2"), 16, "1000Gi", "trn2.48xlarge"),
    ],
)
def test_the_cheapest_type_that_fits_is_bought(
    families: tuple[str, ...], chips: int, memory: str, expected: str
) -> None:
    (draft,) = plan([pod("p", chips, memory)], [pool("a", *families)], [], [], {}, {}).buy
    assert draft.types[0].name == expected


def test_pods_are_packed_until_no_type_holds_them() -> None:
    pods = [pod(str(number), 6) for number in range(4)]
    result = plan(pods, [pool("a", "trn2")], [], [], {}, {})
    assert [len(draft.pods) for draft in result.buy] == [2, 2]


def test_the_heavier_pool_comes_first_and_a_full_one_is_passed_over() -> None:
    full = pool("heavy", "trn2", weight=10, limits={NEURON: "16"})
    spare = pool("light", "trn2")
    spent = {"heavy": {NEURON: Decimal(16)}}
    first = plan([pod("p")], [spare, full], [], [], {}, {}).buy
    assert first[0].pool["metadata"]["name"] == "heavy"
    second = plan([pod("p")], [spare, full], [], [], {}, spent).buy
    assert second[0].pool["metadata"]["name"] == "light"


def test_a_pod_that_fits_an_existing_node_buys_nothing() -> None:
    capacity = {name: str(value) for name, value in INSTANCE_TYPES["trn2.3xlarge"].allocatable().items()}
    node = {"metadata": {"name": "n"}, "spec": {}, "status": {"allocatable": capacity}}
    assert plan([pod("p")], [pool("a", "trn2")], [], [node], {}, {}).buy == []
    used = {"n": {NEURON: Decimal(1)}}
    assert len(plan([pod("p")], [pool("a", "trn2")], [], [node], used, {}).buy) == 1


def test_a_pod_that_asks_for_what_no_type_has_is_refused_with_the_key() -> None:
    (refused,) = plan([pod("p", gpu="yes")], [pool("a", "trn2")], [], [], {}, {}).refused
    assert 'incompatible with nodepool "a"' in refused[1]
    assert 'label "gpu" does not have known values' in refused[1]


def test_an_unready_pool_buys_nothing() -> None:
    closed = pool("a", "trn2")
    closed["status"]["conditions"][0]["status"] = "False"
    result = plan([pod("p")], [closed], [], [], {}, {})
    assert (result.buy, result.refused) == ([], [])


def test_a_claim_carries_what_was_asked_and_where_it_comes_from() -> None:
    (draft,) = plan([pod("p", 2)], [pool("a", "trn2")], [], [], {}, {}).buy
    claim = claim_from(draft)
    assert claim["metadata"]["generateName"] == "a-"
    assert claim["metadata"]["finalizers"] == ["karpenter.sh/termination"]
    assert claim["metadata"]["ownerReferences"][0]["kind"] == "NodePool"
    assert claim["spec"]["resources"]["requests"] == {NEURON: "2", "memory": "1Gi", "pods": "1"}
    kinds = [
        each for each in claim["spec"]["requirements"] if each["key"] == "node.kubernetes.io/instance-type"
    ]
    assert kinds[0]["values"] == ["trn2.48xlarge"]
