"""The examples of docs/operators.md: each is parsed as Airflow would, its tasks run against real servers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster as Server
from tests.support.karpenter import condition, create_claim, create_node, create_pod, create_pool
from tests.support.operators import connect, deferred, finished

PAGE = (Path(__file__).parents[3] / "docs" / "operators.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## (\w+)\n\n```python\n(.*?)```", PAGE, re.M | re.S))
OPERATORS = (
    "KarpenterNodePoolReadyOperator",
    "KarpenterCapacityOperator",
    "KarpenterNodeClaimSensor",
    "NeuronDevicePluginSensor",
    "NeuronHealthOperator",
)


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(autouse=True)
def connection(airflow_home: Path, bare_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(airflow_home))
    connect(monkeypatch, bare_server.kubeconfig, "kubernetes_default")


def tasks(name: str) -> list[Any]:
    """The example as it stands on the page, run as a DAG file is."""
    space: dict[str, Any] = {"__name__": "example"}
    exec(compile(EXAMPLES[name], "docs/operators.md", "exec"), space)
    return list(space["dag"].tasks)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_has_an_example_that_airflow_can_store(name: str, airflow_home: Path) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    found = tasks(name)
    assert {type(each).__name__ for each in found} == {name}
    assert all(each.deferrable for each in found)
    stored = DagSerialization.to_dict(found[0].dag)
    assert DagSerialization.from_dict(json.loads(json.dumps(stored))).task_ids == [
        each.task_id for each in found
    ]
    assert f"| `{name}` |" in PAGE


@pytest.fixture(scope="module")
def neuron(bare_server: Server) -> str:
    """A cluster as the page's examples take it to be."""
    pool = create_pool(bare_server, "neuron", limits={"aws.amazon.com/neuron": 64})
    create_node(bare_server, "doc-node", pool, chips=16)
    done = [condition(each) for each in ("Launched", "Registered", "Initialized", "Ready")]
    create_claim(bare_server, "neuron-doc1", pool, *done, nodeName="doc-node")
    for namespace in ("jobs", "serving"):
        bare_server.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    create_pod(bare_server, "jobs", "worker", node="doc-node", phase="Running")
    return pool


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("KarpenterNodePoolReadyOperator", "NodePool neuron and its EC2NodeClass are ready"),
        ("KarpenterCapacityOperator", "trn2.48xlarge, us-east-2b, spot: open as spot in us-east-2b"),
        ("KarpenterNodeClaimSensor", "NodeClaim neuron-doc1 is Ready as node doc-node"),
        ("NeuronDevicePluginSensor", "16 chips are offered by 1 node(s)"),
    ],
)
def test_the_examples_do_what_the_page_says(neuron: str, name: str, words: str) -> None:
    (task,) = tasks(name)
    assert words in task.execute({})["note"]


def test_the_health_examples_read_what_the_page_says(
    neuron: str, bare_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.exporter import exporter

    server, by_text, insights = tasks("NeuronHealthOperator")
    assert (server.source, by_text.source, insights.source) == ("monitor", "exporter", "cloudwatch")
    with exporter() as served:
        by_text.exporter_url, by_text.window = served.url, 0.1
        assert finished(by_text, deferred(by_text))["state"] == "healthy"
