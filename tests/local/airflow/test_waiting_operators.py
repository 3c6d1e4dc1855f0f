"""Operators for anybody's DAG: they need a connection, wait in a trigger, and fail as people can read it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from tests.support.cluster import Cluster as Server
from tests.support.karpenter import (
    CLAIMS,
    ICE,
    POOLS,
    condition,
    create_claim,
    create_event,
    create_node,
    create_pool,
    offer,
    patch_status,
    set_claim,
)
from tests.support.moody import Moody, kubeconfig_of, moody
from tests.support.operators import connect, deferred, finished, resumed

__all__ = ["moody"]
CONNECTION = {"kubernetes_conn_id": "kubernetes_tests", "deferrable": True, "task_id": "t"}


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(autouse=True)
def connection(airflow_home: Path, bare_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(airflow_home))
    for name in ("TRAINYARD_BUCKET", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    connect(monkeypatch, bare_server.kubeconfig)


@pytest.fixture
def pool(bare_server: Server, space: str) -> str:
    return create_pool(bare_server, f"o-{space}")


def operator(name: str, **given: Any) -> Any:
    from trainyard_airflow.operators import karpenter, neuron

    kind = getattr(karpenter, name, None) or getattr(neuron, name)
    return kind(**{**CONNECTION, **given})


def meanwhile(change: Callable[[], object], seconds: float = 0.2) -> None:
    threading.Timer(seconds, change).start()


def test_a_pool_that_gets_ready_meanwhile_ends_the_wait(bare_server: Server, pool: str) -> None:
    path = f"{POOLS}/{pool}"
    bad = condition("NodeClassReady", "False", "NodeClassNotReady", "no subnets")
    patch_status(bare_server, path, {"conditions": [condition("Ready", "False", "NodeClassReady"), bad]})
    waits = operator("KarpenterNodePoolReadyOperator", nodepool=pool)
    deferral = deferred(waits)
    assert deferral.timeout == timedelta(seconds=1800 + 300)
    meanwhile(lambda: patch_status(bare_server, path, {"conditions": [condition("Ready")]}))
    found = finished(waits, deferral)
    assert "are ready" in found["note"]
    assert found["conditions"]["NodePool"] == {"Ready": "True"}


def test_a_pool_that_does_not_get_ready_says_which_condition_and_why(bare_server: Server, pool: str) -> None:
    bad = condition("NodeClassReady", "False", "NodeClassNotReady", "no subnets")
    status = {"conditions": [condition("Ready", "False", "NodeClassReady"), bad]}
    patch_status(bare_server, f"{POOLS}/{pool}", status)
    waits = operator("KarpenterNodePoolReadyOperator", nodepool=pool, timeout=0.1)
    with pytest.raises(AirflowSensorTimeout, match="NodeClassReady: NodeClassNotReady no subnets"):
        finished(waits, deferred(waits))


@pytest.mark.parametrize("deferrable", [True, False])
def test_what_can_never_be_fails_at_once_or_is_skipped_as_people_say(deferrable: bool) -> None:
    waits = operator("KarpenterNodePoolReadyOperator", nodepool="no-such", deferrable=deferrable)
    with pytest.raises(AirflowFailException, match="NotFound: NodePool no-such does not exist"):
        waits.execute({})
    soft = operator(
        "KarpenterNodePoolReadyOperator", nodepool="no-such", deferrable=deferrable, soft_fail=True
    )
    with pytest.raises(AirflowSkipException):
        soft.execute({})


def test_a_wait_that_times_out_softly_is_skipped(pool: str) -> None:
    soft = operator("NeuronDevicePluginSensor", nodepool=pool, soft_fail=True, timeout=0.1)
    with pytest.raises(AirflowSkipException):
        finished(soft, deferred(soft))


def test_without_a_triggerer_the_task_itself_looks_again_and_again(bare_server: Server, pool: str) -> None:
    waits = operator(
        "NeuronDevicePluginSensor", nodepool=pool, deferrable=False, poke_interval=0.05, timeout=120
    )
    meanwhile(lambda: create_node(bare_server, f"n-{pool}", pool, chips=16))
    assert waits.execute({})["offered"] == {f"n-{pool}": 16}


def test_airflows_own_setting_decides_whether_operators_defer_where_nobody_says() -> None:
    from airflow.sdk.configuration import conf

    from trainyard_airflow.operators.karpenter import KarpenterNodePoolReadyOperator

    unsaid = KarpenterNodePoolReadyOperator(task_id="t", nodepool="p")
    assert unsaid.deferrable is conf.getboolean("operators", "default_deferrable")
    assert KarpenterNodePoolReadyOperator(task_id="t", nodepool="p", deferrable=True).deferrable is True


def test_capacity_is_chosen_as_soon_as_an_offering_is_open(bare_server: Server, pool: str) -> None:
    from trainyard_airflow.operators.karpenter import Offering

    order = [
        Offering("trn2.48xlarge", "us-east-2b", "reserved"),
        Offering("trn2.48xlarge", "us-east-2b", "on-demand"),
    ]
    create_event(bare_server, "default", f"{pool}-x7k2p", "InsufficientCapacityError", ICE, "NodeClaim")
    waits = operator(
        "KarpenterCapacityOperator", nodepool=pool, chips=16, order=order, work=timedelta(hours=2)
    )
    deferral = deferred(waits)
    meanwhile(lambda: create_node(bare_server, f"n-{pool}", pool, chips=16))
    found = finished(waits, deferral)
    assert (found["node"], found["capacity_type"]) == (f"n-{pool}", "on-demand")
    assert "has no reservation for it in us-east-2b" in found["fallen"][0]["reason"]


def test_capacity_that_stays_away_is_no_capacity_with_the_reason(bare_server: Server, pool: str) -> None:
    create_event(bare_server, "default", f"{pool}-x7k2p", "InsufficientCapacityError", ICE, "NodeClaim")
    order = [{"instance_type": "trn2.48xlarge", "zone": "us-east-2b"}]
    waits = operator("KarpenterCapacityOperator", nodepool=pool, chips="16", order=order, timeout=0.1)
    with pytest.raises(AirflowSensorTimeout, match=r"NoCapacity: Waited 0 s.*EC2 had no capacity"):
        finished(waits, deferred(waits))


def test_capacity_that_can_never_be_is_not_waited_for(pool: str) -> None:
    waits = operator("KarpenterCapacityOperator", nodepool=pool, chips=16, order=["trn2.3xlarge"])
    with pytest.raises(AirflowFailException, match=r"Unschedulable: .*it has 1 chip"):
        waits.execute({})


def test_an_order_that_comes_from_another_task_is_read_when_it_runs(bare_server: Server, pool: str) -> None:
    waits = operator("KarpenterCapacityOperator", nodepool=pool, chips=16, order=["{{ x }}"], work="{{ y }}")
    waits.order, waits.work = [{"instance_type": "trn2.48xlarge"}], "60"
    assert waits.execute({})["instance_type"] == "trn2.48xlarge"


def test_a_claim_whose_capacity_ec2_lacks_is_followed_to_the_next_one(bare_server: Server, pool: str) -> None:
    create_claim(bare_server, f"{pool}-a1", pool, condition("Launched", "Unknown", "AwaitingReconciliation"))
    waits = operator("KarpenterNodeClaimSensor", labels=f"karpenter.sh/nodepool={pool}", until="Launched")
    deferral = deferred(waits)

    def lacks() -> None:
        create_event(bare_server, "default", f"{pool}-a1", "InsufficientCapacityError", ICE, "NodeClaim")
        bare_server.request("DELETE", f"{CLAIMS}/{pool}-a1")
        create_claim(bare_server, f"{pool}-b2", pool)
        meanwhile(lambda: set_claim(bare_server, f"{pool}-b2", condition("Launched")))

    meanwhile(lacks)
    assert finished(waits, deferral)["nodeclaim"] == f"{pool}-b2"


def test_a_claim_that_is_waited_for_by_name_fails_when_it_goes(bare_server: Server, pool: str) -> None:
    name = f"{pool}-c3"
    create_claim(bare_server, name, pool)
    waits = operator("KarpenterNodeClaimSensor", nodeclaim=name)
    deferral = deferred(waits)

    def lacks() -> None:
        create_event(bare_server, "default", name, "InsufficientCapacityError", ICE, "NodeClaim")
        bare_server.request("DELETE", f"{CLAIMS}/{name}")

    meanwhile(lacks)
    with pytest.raises(AirflowFailException, match=r"NotFound: .*because EC2 had no capacity"):
        finished(waits, deferral)


def test_a_claim_that_does_not_get_ready_says_what_it_waits_for(bare_server: Server, pool: str) -> None:
    reason = condition("Initialized", "Unknown", "StartupTaintsExist", "StartupTaint exists")
    create_claim(bare_server, f"{pool}-d4", pool, condition("Launched"), condition("Registered"), reason)
    waits = operator("KarpenterNodeClaimSensor", nodeclaim=f"{pool}-d4", timeout=0.1)
    with pytest.raises(AirflowSensorTimeout, match=r"Registered; waiting for .*StartupTaintsExist"):
        finished(waits, deferred(waits))


def test_a_device_plugin_that_comes_late_ends_the_wait(bare_server: Server, pool: str) -> None:
    create_node(bare_server, f"n-{pool}", pool)
    waits = operator("NeuronDevicePluginSensor", node=f"n-{pool}")
    deferral = deferred(waits)
    meanwhile(lambda: offer(bare_server, f"n-{pool}", 16))
    assert finished(waits, deferral)["wanted"] == {f"n-{pool}": 16}


def test_a_device_plugin_that_does_not_come_is_named(bare_server: Server, pool: str) -> None:
    create_node(bare_server, f"n-{pool}", pool)
    waits = operator("NeuronDevicePluginSensor", nodepool=pool, timeout=0.1)
    with pytest.raises(AirflowSensorTimeout, match="offers 0 of 16 chips: the cluster has no DaemonSet"):
        finished(waits, deferred(waits))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("KarpenterNodePoolReadyOperator", {"nodepool": "x"}),
        ("KarpenterCapacityOperator", {"nodepool": "x", "chips": 1}),
        ("KarpenterNodeClaimSensor", {"nodeclaim": "x"}),
        ("NeuronDevicePluginSensor", {"node": "x", "chips": 1}),
    ],
)
def test_an_api_server_that_is_away_for_a_while_is_waited_for(
    moody: Moody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: dict[str, Any]
) -> None:
    connect(monkeypatch, kubeconfig_of(moody, tmp_path))
    from trainyard.kube import cluster as module

    monkeypatch.setattr(module.Cluster.__init__, "__kwdefaults__", {"attempts": 1, "sleep": lambda _: None})
    ready = [{"type": kind, "status": "True"} for kind in ("Launched", "Registered", "Initialized", "Ready")]
    everything = {
        "kind": "X",
        "metadata": {"name": "x"},
        "spec": {"template": {"spec": {"nodeClassRef": {"name": "x"}}}},
        "status": {"conditions": ready, "allocatable": {"aws.amazon.com/neuron": "1"}},
    }
    moody.answers = [(503, {}, {}), None, (500, {}, b"x"), (429, {"Retry-After": "0.1"}, {})]
    moody.then = (200, {}, everything)
    waits = operator(name, **given)
    deferral = deferred(waits)  # the first look, in the task, meets the 503
    assert finished(waits, deferral)["note"]
    assert len(moody.seen) >= 5


def test_an_api_server_that_stays_away_is_a_time_out_with_its_words(
    moody: Moody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, kubeconfig_of(moody, tmp_path))
    from trainyard.kube import cluster as module

    monkeypatch.setattr(module.Cluster.__init__, "__kwdefaults__", {"attempts": 1, "sleep": lambda _: None})
    moody.then = (503, {}, {})
    waits = operator("KarpenterNodePoolReadyOperator", nodepool="x", timeout=0.1)
    with pytest.raises(AirflowSensorTimeout, match="the Kubernetes API did not answer properly"):
        finished(waits, deferred(waits))


def test_a_refused_read_is_permanent(moody: Moody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, kubeconfig_of(moody, tmp_path))
    moody.then = (403, {}, {"message": "nodepools is forbidden"})
    with pytest.raises(AirflowFailException, match="nodepools is forbidden"):
        operator("KarpenterNodePoolReadyOperator", nodepool="x").execute({})


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("KarpenterNodeClaimSensor", {}, "Name one of"),
        ("KarpenterNodeClaimSensor", {"pod": "p", "labels": "a=b"}, "Name one of"),
        ("KarpenterNodeClaimSensor", {"pod": "p", "until": "Done"}, "a NodeClaim gets"),
        ("NeuronDevicePluginSensor", {}, "Name either"),
        ("NeuronDevicePluginSensor", {"node": "n", "nodepool": "p"}, "Name either"),
        ("NeuronHealthOperator", {}, "source monitor takes pod or node; given: none of them"),
        ("NeuronHealthOperator", {"source": "cloudwatch", "node": "n"}, "takes cluster_name and node"),
        ("NeuronHealthOperator", {"source": "x", "node": "n"}, "use one of monitor, exporter, cloudwatch"),
        ("NeuronHealthOperator", {"node": "n", "mode": "reschedule"}, "use deferrable=True"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_when_the_dag_is_read(
    name: str, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        operator(name, **given)


def test_what_a_trigger_says_is_what_the_operator_raises(pool: str) -> None:
    waits = operator("NeuronDevicePluginSensor", nodepool=pool)
    deferral = deferred(waits)
    with pytest.raises(AirflowFailException, match="PermanentError: because"):
        resumed(waits, deferral, {"status": "failed", "error": "PermanentError", "message": "because"})
