"""Is there room, and how far is the node: from Karpenter's own objects and events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trainyard.kube import capacity, claims

Obj = dict[str, Any]
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def condition(kind: str, status: str = "True", **more: str) -> Obj:
    return {"type": kind, "status": status, **more}


def pool(limit: int | None = 64, used: int = 0, ready: Obj | None = None) -> Obj:
    limits = {} if limit is None else {capacity.NEURON: str(limit)}
    return {
        "metadata": {"name": "neuron"},
        "spec": {"limits": limits},
        "status": {"conditions": [ready or condition("Ready")], "resources": {capacity.NEURON: str(used)}},
    }


CLASS = {"metadata": {"name": "neuron"}, "status": {"conditions": [condition("Ready")]}}


def lack(seconds_ago: float, claim: str = "neuron-x7k2p") -> Obj:
    at = (NOW - timedelta(seconds=seconds_ago)).isoformat().replace("+00:00", "Z")
    return {
        "reason": "InsufficientCapacityError",
        "message": f"none for {claim}",
        "involvedObject": {"kind": "NodeClaim", "name": claim},
        "lastTimestamp": at,
        "metadata": {"name": "e"},
    }


def assess(
    nodepool: Obj | None,
    nodeclass: Obj | None = CLASS,
    chips: int = 16,
    events: tuple[Obj, ...] = (),
    free: int = 0,
) -> capacity.Capacity:
    return capacity.assess(nodepool, nodeclass, chips, events, NOW, name="neuron", free_chips=free)


def test_a_ready_pool_with_room_is_enough_and_says_what_is_left() -> None:
    found = assess(pool(used=16))
    assert found.enough
    assert found.notes == ("48 of 64 chips left below the limit of NodePool neuron",)
    assert assess(pool(limit=None)).enough


def test_a_pool_that_does_not_exist_is_no_matter_of_waiting() -> None:
    assert "does not exist" in assess(None).permanent[0]
    assert "EC2NodeClass that does not exist" in assess(pool(), None).permanent[0]


def test_a_limit_below_the_request_is_permanent_but_a_used_one_passes() -> None:
    assert "limited to 8 chips, 16 are needed" in assess(pool(limit=8)).permanent[0]
    found = assess(pool(limit=64, used=56))
    assert not found.permanent
    assert "8 of 64 chips left" in found.passing[0]


def test_chips_of_a_running_node_cost_no_limit() -> None:
    assert assess(pool(limit=16, used=16), free=16).enough


def test_a_pool_that_is_not_ready_says_which_condition_it_lacks() -> None:
    unready = condition("Ready", "False", reason="NodeClassNotReady", message="no subnets")
    found = assess(pool(ready=unready))
    assert not found.permanent
    assert "NodeClassNotReady no subnets" in found.passing[0]
    unseen = {"metadata": {"name": "neuron"}}
    assert "has not looked at it yet" in assess(pool(), unseen).passing[0]


def test_a_recent_lack_of_capacity_is_waited_out_and_an_old_one_forgotten() -> None:
    assert "EC2 had no capacity 60 s ago" in assess(pool(), events=(lack(900), lack(60))).passing[0]
    assert "60 s ago" in assess(pool(), events=(lack(60), lack(100))).passing[0]
    assert assess(pool(), events=(lack(181),)).enough


@pytest.mark.parametrize("claim", ["gpu-x7k2p", "neuron-big-x7k2p", "neuron"])
def test_the_lack_of_another_pool_is_not_ours(claim: str) -> None:
    assert assess(pool(), events=(lack(10, claim),)).enough


@pytest.mark.parametrize(
    ("true", "stage", "words"),
    [
        ((), "Requested", "EC2 to launch"),
        (("Launched",), "Launched", "the node to join"),
        (("Launched", "Registered"), "Registered", "devices to be offered"),
    ],
)
def test_a_nodeclaim_is_followed_stage_by_stage(true: tuple[str, ...], stage: str, words: str) -> None:
    claim = {"status": {"conditions": [condition(kind) for kind in true]}}
    found = claims.progress(claim, None, 16)
    assert (found.stage, found.ready) == (stage, False)
    assert words in found.waiting_for


def test_karpenters_reason_is_told() -> None:
    conditions = [
        condition("Launched"),
        condition("Registered"),
        condition(
            "Initialized", "Unknown", reason="ResourceNotRegistered", message="neuron was not registered"
        ),
    ]
    found = claims.progress({"status": {"conditions": conditions}}, None, 16)
    assert "ResourceNotRegistered: neuron was not registered" in found.waiting_for


def test_a_node_is_ready_when_its_device_plugin_offers_the_chips() -> None:
    claim = {"status": {"conditions": [condition(kind) for kind in claims.STAGES]}}
    assert "offered: 0" in claims.progress(claim, None, 16).waiting_for
    node = {"status": {"allocatable": {capacity.NEURON: "16"}}}
    assert claims.progress(claim, node, 16).ready
    assert claims.progress(None, None, 16).waiting_for == "Karpenter to make a NodeClaim"


def node(name: str, chips: int, nodepool: str = "neuron", **changes: Any) -> Obj:
    return {
        "metadata": {
            "name": name,
            "labels": {"karpenter.sh/nodepool": nodepool},
            **changes.pop("metadata", {}),
        },
        "status": {"allocatable": {capacity.NEURON: str(chips)}},
        **changes,
    }


def pod(host: str | None, chips: int, phase: str = "Running", init: int = 0) -> Obj:
    def container(count: int) -> Obj:
        return {"resources": {"limits": {capacity.NEURON: str(count)}}}

    spec = {"nodeName": host, "containers": [container(chips)], "initContainers": [container(init)]}
    return {"spec": spec, "status": {"phase": phase}}


def test_free_chips_are_those_of_the_best_node_of_the_pool() -> None:
    nodes = [node("a", 16), node("b", 16), node("gpu", 99, "gpu")]
    pods = [pod("a", 16), pod("b", 4), pod("b", 8, "Succeeded"), pod(None, 16), pod("b", 2, init=3)]
    assert capacity.free_chips(nodes, pods, "neuron") == 9
    assert capacity.free_chips([], pods, "neuron") == 0


def test_a_node_that_is_going_away_has_nothing_to_give() -> None:
    leaving = node("a", 16, metadata={"deletionTimestamp": "2030-01-01T00:00:00Z"})
    cordoned = node("b", 16, spec={"unschedulable": True})
    assert capacity.free_chips([leaving, cordoned], [], "neuron") == 0
