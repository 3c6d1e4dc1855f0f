"""NeuronHealthOperator against what it reads: an exporter, CloudWatch, and neuron-monitor in a pod."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, TaskDeferred

from tests.support.cloudwatch import Answer, CloudWatch, cloudwatch
from tests.support.cluster import Cluster as Server
from tests.support.cluster import namespace
from tests.support.exporter import exporter, idle, scrape
from tests.support.karpenter import condition, create_node, create_pod, create_pool, patch_status
from tests.support.moody import Moody, kubeconfig_of, moody
from tests.support.operators import connect, deferred, finished

__all__ = ["moody", "namespace"]
NODE = "ip-10-0-1-2.us-east-2.compute.internal"


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(autouse=True)
def connection(airflow_home: Path, bare_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(airflow_home))
    connect(monkeypatch, bare_server.kubeconfig)


def health(**given: Any) -> Any:
    from trainyard_airflow.operators.neuron import NeuronHealthOperator

    common = {"task_id": "t", "kubernetes_conn_id": "kubernetes_tests", "deferrable": True, "chips": 2}
    return NeuronHealthOperator(**{**common, **given})


def judged(operator: Any, **changes: Any) -> Any:
    """What comes of it, deferred or not."""
    try:
        return operator.execute({})
    except TaskDeferred:
        return finished(operator, deferred(operator), **changes)


def test_an_exporter_is_read_until_it_can_be_judged() -> None:
    with exporter() as served:
        operator = health(source="exporter", exporter_url=served.url)
        found = finished(operator, deferred(operator))
    assert (found["state"], found["devices"], found["source"]) == ("healthy", 2, "the Prometheus exporter")
    assert found["utilization_percent"] == pytest.approx(40)


def test_errors_that_grow_in_an_exporter_are_a_sick_device() -> None:
    with exporter(None, scrape(), scrape(hardware=2, vcpu=0.2)) as served:
        operator = health(source="exporter", exporter_url=served.url)
        with pytest.raises(AirflowFailException, match=r"DeviceUnhealthy: .*2 hardware error"):
            finished(operator, deferred(operator))


def test_an_exporter_that_is_away_for_a_while_is_waited_for() -> None:
    with exporter(None, None, None, "up 1\n") as served:
        operator = health(source="exporter", exporter_url=served.url)
        assert finished(operator, deferred(operator))["state"] == "healthy"
        assert served.scrapes >= 6


def test_an_idle_exporter_is_never_healthy_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainyard_airflow.triggers import looking

    with exporter(*["\n".join(idle())] * 90) as served:

        def clock() -> float:
            """Time is up when it has been looked at often enough."""
            return time.time() + (3600 if served.scrapes > 4 else 0)

        monkeypatch.setattr(looking, "time", SimpleNamespace(time=clock))
        operator = health(source="exporter", exporter_url=served.url, timeout=600)
        with pytest.raises(AirflowSensorTimeout, match=r"Inconclusive: .*no Neuron runtime is running"):
            finished(operator, deferred(operator))


def test_an_exporter_that_does_not_answer_is_never_healthy() -> None:
    operator = health(source="exporter", exporter_url="http://127.0.0.1:9/metrics", timeout=0.1)
    with pytest.raises(AirflowSensorTimeout, match=r"Inconclusive: .*did not answer properly"):
        finished(operator, deferred(operator))


def test_the_task_itself_watches_where_nothing_may_be_deferred() -> None:
    with exporter() as served:
        operator = health(source="exporter", exporter_url=served.url, deferrable=False, poke_interval=0.05)
        assert operator.execute({})["reports"] == 2


def test_a_window_is_watched_to_its_end() -> None:
    with exporter() as served:
        operator = health(source="exporter", exporter_url=served.url, window=timedelta(seconds=0.4))
        assert finished(operator, deferred(operator))["seconds"] >= 0.4


@contextmanager
def proxying_api(pod: dict[str, Any], node: dict[str, Any], bodies: Iterator[str]) -> Iterator[Moody]:
    """An API server with one node and one monitor pod, whose port it passes on."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            path = self.path.partition("?")[0]
            if path == "/api/v1/pods":
                body = json.dumps({"kind": "PodList", "items": [pod]})
            elif path.startswith("/api/v1/nodes/"):
                body = json.dumps(node)
            else:
                assert path == "/api/v1/namespaces/neuron/pods/neuron-monitor-x%3A8000/proxy/metrics"
                body = next(bodies)
            raw = body.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield Moody(url=f"http://127.0.0.1:{server.server_port}", seen=seen)
    finally:
        server.shutdown()
        server.server_close()


def test_an_exporter_on_a_node_is_read_through_the_kubernetes_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = "public.ecr.aws/neuron/neuron-monitor:1.3.0"
    pod = {
        "metadata": {"name": "neuron-monitor-x", "namespace": "neuron"},
        "spec": {"containers": [{"name": "m", "image": image}]},
        "status": {"phase": "Running"},
    }
    bad = condition("NeuronHealth", "True", "NeuronHasError_DMA_ERROR", "bad")
    texts = (scrape(vcpu=number / 100) for number in range(99))
    with proxying_api(pod, {"metadata": {"name": NODE}, "status": {}}, texts) as api:
        connect(monkeypatch, kubeconfig_of(api, tmp_path))
        operator = health(source="exporter", node=NODE)
        assert finished(operator, deferred(operator))["target"] == f"node {NODE}"
        assert any("spec.nodeName%3D" in path for path in api.seen)
    with proxying_api(pod, {"metadata": {"name": NODE}, "status": {"conditions": [bad]}}, texts) as api:
        connect(monkeypatch, kubeconfig_of(api, tmp_path))
        with pytest.raises(AirflowFailException, match="NeuronHasError_DMA_ERROR"):
            health(source="exporter", node=NODE).execute({})


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudWatch]:
    with cloudwatch(lambda asked: whole(asked)) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", found.url)
        extra = {"region_name": "us-east-2"}
        value = {"conn_type": "aws", "login": "id", "password": "secret", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_TESTS", json.dumps(value))
        yield found


def whole(asked: dict[str, Any], **changes: list[float]) -> dict[str, Any]:
    """GetMetricData's answer for the node that serves: a value a minute, nothing for other nodes."""
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    moments = [(end - timedelta(minutes=minutes)).timestamp() for minutes in (5, 4, 3)]
    series = {"errors": [0.0] * 3, "memory": [1e9] * 3, "used": [40.0, 50.0, 60.0]}
    labels = {"ecc": ["device0", "device1"]}
    results = [
        {
            "Id": query["Id"],
            "Label": label,
            "Timestamps": moments,
            "Values": changes.get(label, series.get(label, [0.0] * 3)),
            "StatusCode": "Complete",
        }
        for query in asked["MetricDataQueries"]
        if f'NodeName="{NODE}"' in query["Expression"]
        for label in labels.get(query["Id"], [query["Id"]])
    ]
    return {"MetricDataResults": results, "Messages": []}


def insights(**given: Any) -> Any:
    common = {"source": "cloudwatch", "cluster_name": "prod", "node": NODE, "aws_conn_id": "aws_tests"}
    return health(**{**common, **given})


@pytest.fixture
def node(bare_server: Server) -> Iterator[str]:
    create_node(bare_server, NODE, "any", chips=16)
    yield NODE
    bare_server.request("DELETE", f"/api/v1/nodes/{NODE}")


def test_cloudwatch_clears_a_node_in_one_look(watch: CloudWatch, node: str) -> None:
    found = insights(window=60).execute({})
    assert (found["state"], found["devices"], found["reports"]) == ("healthy", 2, 3)
    assert found["utilization_percent"] == pytest.approx(50)
    (asked,) = watch.asked
    assert asked["EndTime"] - asked["StartTime"] == 600


def test_cloudwatch_that_comes_in_pages_is_read_to_the_end(watch: CloudWatch, node: str) -> None:
    def paged(asked: dict[str, Any]) -> Answer:
        results = whole(asked)["MetricDataResults"]
        if "NextToken" not in asked:
            return {"MetricDataResults": results[:2], "NextToken": "more"}
        return {"MetricDataResults": results[2:]}

    watch.answer = paged
    assert insights().execute({})["devices"] == 2
    assert [each.get("NextToken") for each in watch.asked] == [None, "more"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda asked: {"MetricDataResults": []}, "0 reading"),
        (lambda asked: whole(asked, device1=[0.0, 3.0, 0.0]), "counts 3 ECC event"),
        (lambda asked: whole(asked, errors=[0.0, 3.0, 0.0]), "3 execution error"),
    ],
)
def test_cloudwatch_that_says_nothing_clear_is_never_healthy(
    watch: CloudWatch, node: str, answer: Any, words: str
) -> None:
    watch.answer = answer
    seen = insights().look()
    assert not seen.done
    assert words in seen.note


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((400, "ThrottlingException", "Rate exceeded"), "Rate exceeded"),
        ({"MetricDataResults": [{"Id": "ecc", "StatusCode": "InternalError"}]}, "could not give ecc"),
    ],
)
def test_cloudwatch_that_is_busy_is_waited_for(
    watch: CloudWatch, node: str, answer: Answer, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    watch.answer = lambda asked: answer
    operator = insights(timeout=0.1)
    deferral = deferred(operator)
    if words == "Rate exceeded":
        watch.answer = whole
        assert finished(operator, deferral)["state"] == "healthy"
    else:
        with pytest.raises(AirflowSensorTimeout, match=f"Inconclusive: .*{words}"):
            finished(operator, deferral)


def test_cloudwatch_that_refuses_is_permanent_and_says_what_is_missing(watch: CloudWatch, node: str) -> None:
    watch.answer = lambda asked: (403, "AccessDenied", "not authorized")
    with pytest.raises(AirflowFailException, match=r"needs cloudwatch:GetMetricData"):
        insights().execute({})


def test_a_node_without_a_monitor_pod_is_unknown_and_one_that_is_not_there_fails(
    bare_server: Server, node: str
) -> None:
    operator = health(node=node, timeout=0.1)
    with pytest.raises(AirflowSensorTimeout, match="No running neuron-monitor pod is on node"):
        finished(operator, deferred(operator))
    with pytest.raises(AirflowFailException, match="Node no-such does not exist"):
        health(node="no-such").execute({})


def test_a_condemned_node_is_sick_although_nobody_answers_there(bare_server: Server, node: str) -> None:
    bad = condition("NeuronHealth", "True", "NeuronHasError_DMA_ERROR", "bad")
    patch_status(bare_server, f"/api/v1/nodes/{node}", {"conditions": [bad]})
    with pytest.raises(AirflowFailException, match=r"DeviceUnhealthy: .*NeuronHasError_DMA_ERROR bad"):
        health(node=node).execute({})


def test_a_pod_that_is_gone_fails_and_one_that_cannot_be_asked_is_unknown(
    bare_server: Server, space: str
) -> None:
    with pytest.raises(AirflowFailException, match="is gone: its devices cannot be asked"):
        health(pod="w", namespace=space).execute({})
    create_pod(bare_server, space, "w", phase="Running")
    operator = health(pod="w", namespace=space, timeout=0.1)
    with pytest.raises(AirflowSensorTimeout, match=r"Inconclusive: .*exec in pod"):
        finished(operator, deferred(operator))


def test_a_node_is_bought_offers_its_devices_and_is_cleared_by_its_own_neuron_monitor(
    cluster: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Karpenter's stand-in buys the node, the kubelet's runs the pod, the shim of neuron-monitor answers."""
    from trainyard_airflow.operators.karpenter import KarpenterCapacityOperator, KarpenterNodeClaimSensor
    from trainyard_airflow.operators.neuron import NeuronDevicePluginSensor, NeuronHealthOperator

    connect(monkeypatch, cluster.kubeconfig)
    common = {"task_id": "t", "kubernetes_conn_id": "kubernetes_tests", "deferrable": False}
    fast = {**common, "poke_interval": 0.1, "timeout": 120}
    types = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["trn2.3xlarge"]}
    pool = create_pool(cluster, f"h-{namespace}", requirements=[types])
    chosen = KarpenterCapacityOperator(nodepool=pool, chips=1, order=["trn2.3xlarge"], **fast).execute({})
    chips = {"aws.amazon.com/neuron": "1"}
    cluster.pod(
        namespace,
        "neuron-monitor-x",
        ["sh", "-c", "sleep 600"],
        nodeSelector={"karpenter.sh/nodepool": pool, **chosen["node_selector"]},
        tolerations=[{"key": "aws.amazon.com/neuron", "operator": "Exists"}],
        container={
            "image": "public.ecr.aws/neuron/neuron-monitor:1.3.0",
            "resources": {"requests": chips, "limits": chips},
        },
    )
    claim = KarpenterNodeClaimSensor(pod="neuron-monitor-x", namespace=namespace, chips=1, **fast).execute({})
    assert claim["instance_type"] == "trn2.3xlarge"
    assert NeuronDevicePluginSensor(node=claim["node"], **fast).execute({})["offered"] == {claim["node"]: 1}
    cluster.phase(namespace, "neuron-monitor-x", "Running")
    of_node = NeuronHealthOperator(node=claim["node"], chips=1, runtime=False, **fast).execute({})
    assert (of_node["state"], of_node["devices"]) == ("healthy", 1)
    assert of_node["source"] == "neuron-monitor"
    with pytest.raises(AirflowFailException, match="1 Neuron devices are visible, 2 are expected"):
        NeuronHealthOperator(pod="neuron-monitor-x", namespace=namespace, chips=2, **fast).execute({})
