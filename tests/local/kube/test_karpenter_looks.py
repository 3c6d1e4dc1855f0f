"""Looks at Karpenter and the device plugin, in a real API server whose state the test writes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cluster import Cluster as Server
from tests.support.karpenter import (
    CLAIMS,
    CLASSES,
    ICE,
    POOLS,
    condition,
    create_claim,
    create_event,
    create_node,
    create_pod,
    create_pool,
    offer,
    patch_status,
    set_claim,
)
from trainyard.errors import NotFound, PermanentError, Unschedulable
from trainyard.kube.cluster import Cluster
from trainyard.kube.devices import device_plugin
from trainyard.kube.karpenter import capacity_free, nodeclaim, nodepool_ready
from trainyard.kube.looks import Look

TYPE = "trn2.48xlarge"


@pytest.fixture
def pool(bare_server: Server, space: str) -> str:
    return create_pool(bare_server, f"p-{space}")


def test_a_ready_pool_is_told_with_its_conditions(kube: Cluster, pool: str) -> None:
    look = nodepool_ready(kube, nodepool=pool)
    assert look.done
    assert look.data["conditions"] == {"NodePool": {"Ready": "True"}, "EC2NodeClass": {"Ready": "True"}}


def test_a_pool_that_is_not_ready_says_which_condition_of_which_object(
    kube: Cluster, bare_server: Server, pool: str
) -> None:
    bad = condition("SubnetsReady", "False", "SubnetsNotFound", "SubnetSelector did not match any Subnets")
    status = {"conditions": [condition("Ready", "False", "SubnetsReady"), bad]}
    patch_status(bare_server, f"{CLASSES}/{pool}", status)
    look = nodepool_ready(kube, nodepool=pool)
    assert not look.done
    assert "its EC2NodeClass is not ready" in look.note
    assert "SubnetsReady: SubnetsNotFound SubnetSelector did not match any Subnets" in look.note


def test_a_condition_of_an_older_generation_counts_no_more(
    kube: Cluster, bare_server: Server, pool: str
) -> None:
    seen = {**condition("Ready"), "observedGeneration": 1}
    patch_status(bare_server, f"{POOLS}/{pool}", {"conditions": [seen]})
    assert nodepool_ready(kube, nodepool=pool).done
    change = {"spec": {"limits": {"cpu": "10"}}}
    bare_server.request("PATCH", f"{POOLS}/{pool}", change, media="application/merge-patch+json")
    look = nodepool_ready(kube, nodepool=pool)
    assert not look.done
    assert "Karpenter has looked at generation 1, it is at 2" in look.note


def test_nodes_that_do_not_join_are_worth_a_word(kube: Cluster, bare_server: Server, pool: str) -> None:
    bad = condition("NodeRegistrationHealthy", "False", "UnableToRegister", "5 of 5 launches failed")
    patch_status(bare_server, f"{POOLS}/{pool}", {"conditions": [condition("Ready"), bad]})
    look = nodepool_ready(kube, nodepool=pool)
    assert look.done
    assert "its nodes have not joined of late (NodeRegistrationHealthy: UnableToRegister" in look.note


def test_a_pool_that_does_not_exist_is_told_at_once(kube: Cluster, bare_server: Server, pool: str) -> None:
    with pytest.raises(NotFound, match="NodePool no-such does not exist"):
        nodepool_ready(kube, nodepool="no-such")
    bare_server.request("DELETE", f"{CLASSES}/{pool}")
    with pytest.raises(PermanentError, match="EC2NodeClass that does not exist"):
        nodepool_ready(kube, nodepool=pool)


def room(kube: Cluster, pool: str, *order: Any, chips: int = 16, **more: Any) -> Look:
    return capacity_free(kube, nodepool=pool, chips=chips, order=order, **more)


def test_the_next_offering_is_taken_when_ec2_lacked_the_first(
    kube: Cluster, bare_server: Server, pool: str
) -> None:
    order = (
        {"instance_type": TYPE, "capacity_type": "reserved"},
        {"instance_type": TYPE, "zone": "us-east-2b", "capacity_type": "on-demand"},
        {"instance_type": TYPE, "zone": "us-east-2a", "capacity_type": "on-demand"},
    )
    create_event(bare_server, "default", f"{pool}-x7k2p", "InsufficientCapacityError", ICE, "NodeClaim")
    look = room(kube, pool, *order)
    assert look.done
    assert look.data["zone"] == "us-east-2a"
    assert [each["offering"]["zone"] for each in look.data["fallen"]] == [None, "us-east-2b"]
    assert "EC2NodeClass has no reservation for it" in look.data["fallen"][0]["reason"]
    assert "Passed over: trn2.48xlarge, any zone, reserved" in look.note
    assert look.data["chips_left"] == "16"


def test_when_no_offering_is_open_it_is_waited(kube: Cluster, bare_server: Server, pool: str) -> None:
    create_event(bare_server, "default", f"{pool}-x7k2p", "InsufficientCapacityError", ICE, "NodeClaim")
    look = room(kube, pool, {"instance_type": TYPE, "zone": "us-east-2b"})
    assert not look.done
    assert "no offering is open now" in look.note
    assert "EC2 had no capacity" in look.note


def test_an_ask_that_no_offering_can_ever_meet_is_not_waited_for(kube: Cluster, pool: str) -> None:
    with pytest.raises(Unschedulable, match=r"can never give 16 chips.*it has 1 chip\(s\), 16 are needed"):
        room(kube, pool, "trn2.3xlarge")


def test_a_pool_that_is_not_ready_still_has_its_running_nodes(
    kube: Cluster, bare_server: Server, pool: str
) -> None:
    patch_status(
        bare_server, f"{POOLS}/{pool}", {"conditions": [condition("Ready", "False", "X", "no subnets")]}
    )
    assert "no subnets" in room(kube, pool, TYPE).note
    create_node(bare_server, f"n-{pool}", pool, chips=16)
    look = room(kube, pool, TYPE)
    assert look.done
    assert look.data["node"] == f"n-{pool}"


def test_a_limit_with_a_suffix_is_read(kube: Cluster, bare_server: Server, space: str) -> None:
    pool = create_pool(bare_server, f"q-{space}", limits={"aws.amazon.com/neuron": "1k", "memory": "4Ti"})
    look = capacity_free(kube, nodepool=pool, chips=16)
    assert look.done
    assert "1000 of 1000 chips left" in look.note
    assert room(kube, pool, TYPE).done


def claim(kube: Cluster, **how: Any) -> Look:
    return nodeclaim(kube, **how)


def test_a_claim_is_followed_from_stage_to_stage(kube: Cluster, bare_server: Server, pool: str) -> None:
    name = f"{pool}-a1"
    assert f"there is no NodeClaim {name}" in claim(kube, name=name).note
    create_claim(bare_server, name, pool, condition("Launched"), nodeName="")
    look = claim(kube, name=name)
    assert (look.done, look.data["stage"]) == (False, "Launched")
    assert claim(kube, name=name, until="Launched").done
    unknown = condition(
        "Initialized", "Unknown", "ResourceNotRegistered", 'Resource "aws.amazon.com/neuron" was requested'
    )
    set_claim(bare_server, name, condition("Launched"), condition("Registered"), unknown)
    look = claim(kube, labels=f"karpenter.sh/nodepool={pool}")
    assert look.data["stage"] == "Registered"
    assert "ResourceNotRegistered" in look.note
    assert "is the Neuron device plugin running on it" in look.note
    done = [condition(each) for each in ("Launched", "Registered", "Initialized", "Ready")]
    set_claim(bare_server, name, *done, nodeName=f"n-{pool}")
    assert claim(kube, name=name).done
    create_node(bare_server, f"n-{pool}", pool, chips=8)
    assert "offer 16 chips (offered: 8)" in claim(kube, name=name, chips=16).note
    offer(bare_server, f"n-{pool}", 16)
    assert claim(kube, name=name, chips=16).data["node"] == f"n-{pool}"


def test_a_claim_that_went_for_want_of_capacity_is_told_by_its_event(
    kube: Cluster, bare_server: Server, pool: str
) -> None:
    name = f"{pool}-b2"
    create_claim(bare_server, name, pool, condition("Launched", "Unknown", "AwaitingReconciliation"))
    assert not claim(kube, name=name).done
    create_event(bare_server, "default", name, "InsufficientCapacityError", ICE, "NodeClaim")
    bare_server.request("DELETE", f"{CLAIMS}/{name}")
    with pytest.raises(NotFound, match=r"EC2 had no capacity: .*wait for it by labels or by its pod"):
        claim(kube, name=name)
    look = claim(kube, labels=f"karpenter.sh/nodepool={pool}")
    assert not look.done
    assert "do not have sufficient trn2.48xlarge capacity" in look.note


def test_a_pods_claim_is_the_one_that_karpenter_nominated_last(
    kube: Cluster, bare_server: Server, pool: str, space: str
) -> None:
    assert "there is no pod" in claim(kube, pod="w", namespace=space).note
    create_pod(bare_server, space, "w")
    assert "waits for Karpenter" in claim(kube, pod="w", namespace=space).note
    words = f"Pod should schedule on: nodeclaim/{pool}-c3"
    create_event(bare_server, space, "w", "Nominated", words, at="2030-01-01T00:00:00Z")
    create_event(bare_server, "default", f"{pool}-c3", "InsufficientCapacityError", ICE, "NodeClaim")
    look = claim(kube, pod="w", namespace=space)
    assert f"EC2 had no capacity for NodeClaim {pool}-c3, Karpenter keeps trying" in look.note
    create_claim(bare_server, f"{pool}-d4", pool, condition("Launched"))
    words = f"Pod should schedule on: nodeclaim/{pool}-d4"
    create_event(bare_server, space, "w", "Nominated", words, at="2030-01-01T00:04:00Z")
    assert claim(kube, pod="w", namespace=space, until="Launched").data["nodeclaim"] == f"{pool}-d4"


def test_a_pod_that_runs_leads_to_its_nodes_claim(
    kube: Cluster, bare_server: Server, pool: str, space: str
) -> None:
    create_pod(bare_server, space, "r", node=f"m-{pool}")
    look = claim(kube, pod="r", namespace=space)
    assert look.done
    assert "which no NodeClaim made" in look.note
    create_claim(bare_server, f"{pool}-e5", pool, condition("Launched"), nodeName=f"m-{pool}")
    assert claim(kube, pod="r", namespace=space).data["stage"] == "Launched"


def test_a_pod_that_no_pool_can_serve_is_told_at_once(kube: Cluster, bare_server: Server, space: str) -> None:
    create_pod(bare_server, space, "u")
    create_event(
        bare_server, space, "u", "FailedScheduling", 'incompatible with nodepool "x", label mismatch'
    )
    with pytest.raises(Unschedulable, match="label mismatch"):
        claim(kube, pod="u", namespace=space)


def test_nodes_that_offer_all_their_chips_end_the_wait(kube: Cluster, bare_server: Server, pool: str) -> None:
    assert "0 nodes of NodePool" in device_plugin(kube, nodepool=pool).note
    create_node(bare_server, f"n-{pool}", pool, chips=16)
    look = device_plugin(kube, nodepool=pool)
    assert look.done
    assert look.data == {"offered": {f"n-{pool}": 16}, "wanted": {f"n-{pool}": 16}}
    assert not device_plugin(kube, nodepool=pool, nodes=2).done
    assert device_plugin(kube, node=f"n-{pool}").done


PLUGIN = "public.ecr.aws/neuron/neuron-device-plugin:2.28.0"


def test_a_node_without_the_device_plugin_says_so_and_what_to_do(
    kube: Cluster, bare_server: Server, pool: str, space: str
) -> None:
    name = f"n-{pool}"
    create_node(bare_server, name, pool)
    note = device_plugin(kube, node=name).note
    assert "offers 0 of 16 chips: the cluster has no DaemonSet neuron-device-plugin. Install it" in note
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "p", "image": PLUGIN}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    body = {"metadata": {"name": "neuron-device-plugin"}, "spec": spec}
    path = f"/apis/apps/v1/namespaces/{space}/daemonsets"
    bare_server.request("POST", path, body)
    note = device_plugin(kube, node=name).note
    assert "puts no pod on it: its node affinity leaves the instance type out, or a taint is not" in note
    bare_server.request("DELETE", f"{path}/neuron-device-plugin")


@pytest.mark.parametrize(
    ("status", "capacity", "words"),
    [
        ({"phase": "Pending"}, 0, "is Pending"),
        ({"phase": "Running"}, 0, "runs and finds no device: does the node's AMI have the Neuron driver"),
        ({"phase": "Running"}, 16, "16 are there, and the device plugin calls the others unhealthy"),
        ({"phase": "Running"}, 4, "has found 4 so far"),
        ("CrashLoopBackOff", 0, "keeps dying (3 restarts)"),
        ("ErrImagePull", 0, "cannot be pulled"),
    ],
)
def test_a_device_plugin_that_does_not_do_its_work_is_told_by_what_ails_it(
    kube: Cluster, bare_server: Server, pool: str, space: str, status: Any, capacity: int, words: str
) -> None:
    name = f"n-{pool}"
    create_node(bare_server, name, pool)
    offer(bare_server, name, 4 if capacity else 0, capacity)
    if isinstance(status, str):
        item = {"name": "server", "image": PLUGIN, "imageID": "", "ready": False, "restartCount": 3}
        waiting = {"waiting": {"reason": status, "message": "not found"}}
        status = {"phase": "Running", "containerStatuses": [{**item, "state": waiting}]}
    create_pod(bare_server, space, "neuron-device-plugin-x", node=name, image=PLUGIN, **status)
    look = device_plugin(kube, node=name)
    assert not look.done
    assert words in look.note


def test_a_node_of_an_unknown_type_has_to_be_told_its_chips(
    kube: Cluster, bare_server: Server, pool: str
) -> None:
    create_node(bare_server, f"n-{pool}", pool, kind="trn9.large", chips=3)
    with pytest.raises(PermanentError, match=r"trn9\.large.*Say its chips"):
        device_plugin(kube, nodepool=pool)
    assert device_plugin(kube, nodepool=pool, chips=3).done
