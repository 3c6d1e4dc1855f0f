"""The DAG that looks after what serves now, over servers in a real API server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster as Server
from tests.support.karpenter import condition, create_pod
from trainyard.kube.cluster import Cluster
from trainyard.stages import fleet

DAGS = Path(__file__).parents[3] / "dags"
LABELS = {"app.kubernetes.io/managed-by": "trainyard", "app.kubernetes.io/component": "server"}
READY = {"phase": "Running", "conditions": [condition("Ready")]}


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "AIRFLOW_HOME", os.environ.get("AIRFLOW_HOME") or str(tmp_path_factory.mktemp("airflow"))
        )
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(dag_folder=str(DAGS / "fleet_health.py"))
        assert bag.import_errors == {}
        return bag.dags["fleet_health"]


def labels(model: str) -> dict[str, str]:
    return {**LABELS, "trainyard.dev/model": model}


def test_only_servers_that_are_ready_and_stay_are_looked_at(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    create_pod(bare_server, space, "b-1", node="n1", labels=labels("b"), **READY)
    create_pod(bare_server, space, "a-1", node="n2", labels=labels("a"), **READY)
    create_pod(bare_server, space, "starts", node="n1", labels=labels("a"), phase="Running")
    create_pod(bare_server, space, "pending", labels=labels("a"))
    create_pod(bare_server, space, "job", node="n1", **READY)
    found = fleet.serving(kube, space)
    assert [(each.model, each.pod, each.node, each.chips) for each in found] == [
        ("a", "a-1", "n2", 4),
        ("b", "b-1", "n1", 4),
    ]
    assert fleet.nodes(found) == ["n1", "n2"]
    assert fleet.devices(found)[0] == {"pod": "a-1", "chips": 4, "container": "server"}


def test_a_server_that_goes_is_left_alone() -> None:
    pod = {
        "metadata": {"name": "p", "labels": labels("a"), "deletionTimestamp": "2030-01-01T00:00:00Z"},
        "spec": {"nodeName": "n", "nodeSelector": {"karpenter.sh/nodepool": "neuron"}, "containers": []},
        "status": READY,
    }
    assert fleet.servers([pod]) == []
    stays = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": None}}
    assert fleet.nodepools(fleet.servers([stays])) == ["neuron"]


def test_there_is_a_task_for_every_pod_node_and_pool_and_nothing_else(dag: Any) -> None:
    kinds = {each.task_id: each for each in dag.tasks}
    wired = {"node_pool": "list_node_pools", "device_plugin": "list_nodes", "devices": "list_servers"}
    assert set(kinds) == {*wired, *wired.values()}
    for name, before in wired.items():
        assert kinds[name].upstream_task_ids == {before}
        assert kinds[name].partial_kwargs["deferrable"] is True
        assert kinds[name].partial_kwargs["map_index_template"]


def test_each_mapped_task_takes_what_the_list_gives(dag: Any) -> None:
    kinds = {each.task_id: each for each in dag.tasks}
    given = fleet.devices([fleet.Server("a", "a-1", "n", "p", 4)])[0]
    assert kinds["devices"].unmap(given).target().pod == "a-1"
    assert kinds["node_pool"].unmap({"nodepool": "p"}).arguments() == {"nodepool": "p"}
    assert kinds["device_plugin"].unmap({"node": "n"}).node == "n"
