"""Each thing that a cluster may lack, in turn: found, named, and with a way to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.local.doctor.conftest import CLASS, GATEWAY, NODECLASS, ROUTE, Ward, condition, pool_path
from tests.support.world import api_client
from trainyard.doctor import capacity, gateway, kinds, objects, rights
from trainyard.doctor.findings import Finding
from trainyard.kube.cluster import Cluster
from trainyard.spec import Spec

ACCOUNT = "system:serviceaccount:airflow:airflow-scheduler"
Look = Callable[[Ward, Spec], Iterator[Finding]]
LOOKS: dict[str, Look] = {
    "kinds": lambda ward, spec: kinds.served(ward.cluster),
    "namespaces": lambda ward, spec: objects.namespaces(ward.cluster, ward.settings),
    "accounts": lambda ward, spec: objects.accounts(ward.cluster, ward.settings),
    "priorities": lambda ward, spec: objects.priorities(ward.cluster),
    "capacity": lambda ward, spec: capacity.pools(ward.cluster, [spec]),
    "devices": lambda ward, spec: capacity.devices(ward.cluster),
    "gateway": lambda ward, spec: gateway.gateway(ward.cluster, ward.settings),
    "rights": lambda ward, spec: rights.rights(account_of(ward), ward.settings, ACCOUNT),
}


def account_of(ward: Ward, name: str = ACCOUNT) -> Cluster:
    api = api_client(ward.server)
    api.set_default_header("Impersonate-User", name)
    return Cluster(api)


@pytest.mark.parametrize("part", LOOKS)
def test_a_cluster_that_lacks_nothing_is_well(ward: Ward, spec: Spec, part: str) -> None:
    found = list(LOOKS[part](ward, spec))

    assert found
    assert {each.state for each in found} == {"ok"}, found


NAMESPACES, ACCOUNTS = "/api/v1/namespaces", "serviceaccounts"
PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"
ROLE = "/apis/rbac.authorization.k8s.io/v1/namespaces/trainyard-serving/rolebindings/trainyard-airflow"


@pytest.mark.parametrize(
    ("part", "path", "about", "mend"),
    [
        ("accounts", f"{NAMESPACES}/trainyard-jobs/{ACCOUNTS}/trainyard-fetch", "trainyard-fetch", "apply"),
        ("priorities", f"{PRIORITIES}/trainyard-serving", "trainyard-serving", "apply"),
        ("capacity", pool_path("neuron-trn2"), "NodePool neuron-trn2", "hardware.nodepool"),
        ("capacity", NODECLASS, "EC2NodeClass neuron", "apply"),
        ("gateway", GATEWAY, "Gateway trainyard-serving/trainyard", "TRAINYARD_GATEWAY_NAME"),
        ("gateway", CLASS, "GatewayClass traefik", "Install an implementation"),
        ("rights", ROLE, "create deployments.apps in trainyard-serving", "RoleBindings"),
    ],
)
def test_what_is_missing_is_named_with_a_way_to_make_it(
    ward: Ward, spec: Spec, part: str, path: str, about: str, mend: str
) -> None:
    with ward.without(path):
        failed = [each for each in LOOKS[part](ward, spec) if each.state == "failed"]

    assert any(about in each.about and mend in each.mend for each in failed), failed


def test_without_the_base_route_nothing_proves_that_routes_are_taken(ward: Ward) -> None:
    with ward.without(ROUTE):
        found = list(gateway.gateway(ward.cluster, ward.settings))

    assert [each.state for each in found if "trainyard.base" in each.about] == ["warning"]


@pytest.mark.parametrize(
    ("path", "bad", "words", "mend"),
    [
        (
            f"{NODECLASS}/status",
            [condition("Ready", "False"), condition("SubnetsReady", "False", "SubnetsNotFound", "no subnet")],
            "SubnetsReady: SubnetsNotFound no subnet",
            "subnetSelectorTerms",
        ),
        (
            f"{pool_path('neuron-trn2')}/status",
            [condition("Ready", "False"), condition("NodeClassReady", "False", "NodeClassNotReady")],
            "NodeClassReady: NodeClassNotReady",
            "EC2NodeClass",
        ),
        (f"{NODECLASS}/status", [], "has not looked at it", "Is Karpenter running"),
    ],
)
def test_a_pool_that_is_not_ready_says_by_which_condition(
    ward: Ward, spec: Spec, path: str, bad: list[Any], words: str, mend: str
) -> None:
    well = {"status": {"conditions": [condition("Ready"), condition("ValidationSucceeded")]}}
    with ward.but(path, {"status": {"conditions": bad}}, well):
        failed = [each for each in capacity.pools(ward.cluster, [spec]) if each.state == "failed"]

    assert len(failed) == 1
    assert words in failed[0].says
    assert mend in failed[0].mend


def test_an_instance_type_that_the_pool_never_buys_is_found_before_a_pod_waits_for_it(
    ward: Ward, spec: Spec
) -> None:
    hardware = spec.hardware.model_copy(update={"instance_type": "inf2.xlarge"})
    odd = spec.model_copy(update={"hardware": hardware})

    failed = [each for each in capacity.pools(ward.cluster, [odd]) if each.state == "failed"]

    assert "can never be scheduled" in failed[0].says
    assert "inf2.xlarge" in failed[0].says


@pytest.mark.parametrize(
    ("status", "words", "mend"),
    [
        ([condition("Accepted"), condition("Programmed", "False", "AddressNotAssigned", "no address")],
         "AddressNotAssigned: no address", "controller"),
        ([], "not programmed", "controller"),
    ],
)  # fmt: skip
def test_a_gateway_that_is_not_programmed_is_broken(
    ward: Ward, status: list[Any], words: str, mend: str
) -> None:
    well = {"status": {"conditions": [condition("Accepted"), condition("Programmed")]}}
    with ward.but(f"{GATEWAY}/status", {"status": {"conditions": status}}, well):
        failed = [each for each in gateway.gateway(ward.cluster, ward.settings) if each.state == "failed"]

    assert [words in each.says and mend in each.mend for each in failed] == [True]


def test_a_class_that_nobody_runs_is_broken(ward: Ward) -> None:
    well = {"status": {"conditions": [condition("Accepted")]}}
    waiting = {"status": {"conditions": [condition("Accepted", "Unknown", "Pending")]}}
    with ward.but(f"{CLASS}/status", waiting, well):
        failed = [each for each in gateway.gateway(ward.cluster, ward.settings) if each.state == "failed"]

    assert "traefik.io/gateway-controller" in failed[0].mend


def test_a_node_that_offers_too_few_chips_tells_what_its_plugin_lacks(ward: Ward) -> None:
    nodes, labels = "/api/v1/nodes", {"node.kubernetes.io/instance-type": "trn2.48xlarge"}
    ward.server.request("POST", nodes, {"metadata": {"name": "n1", "labels": labels}})
    status = {"conditions": [condition("Ready")], "allocatable": {"aws.amazon.com/neuron": "16"}}
    try:
        ward.patch(f"{nodes}/n1/status", {"status": status})
        assert [each.state for each in capacity.devices(ward.cluster)] == ["ok"]

        ward.patch(f"{nodes}/n1/status", {"status": {"allocatable": {"aws.amazon.com/neuron": "0"}}})
        (found,) = capacity.devices(ward.cluster)
        assert (found.state, found.says) == ("failed", "trn2.48xlarge offers 0 of 16 chips")
        assert "neuron-helm-chart" in found.mend

        bad = [condition("Ready"), condition("NeuronHealth", "True", "NeuronHasError_DMA_ERROR")]
        ward.patch(f"{nodes}/n1/status", {"status": {"conditions": bad}})
        (found,) = capacity.devices(ward.cluster)
        assert "NeuronHasError_DMA_ERROR" in found.says
    finally:
        ward.server.request("DELETE", f"{nodes}/n1")


def test_a_namespace_that_holds_pods_to_nothing_is_a_warning_and_a_missing_one_an_error(ward: Ward) -> None:
    settings = ward.settings.model_copy(update={"jobs_namespace": "default", "serving_namespace": "none"})

    found = {each.about: each.state for each in objects.namespaces(ward.cluster, settings)}

    assert found == {"default": "warning", "none": "failed"}


def test_a_placeholder_for_the_account_is_noticed(ward: Ward) -> None:
    path = f"{NAMESPACES}/trainyard-jobs/{ACCOUNTS}/trainyard-fetch"
    role = "eks.amazonaws.com/role-arn"

    def notes(value: str) -> Any:
        return {"metadata": {"annotations": {role: value}}}

    was = ward.server.request("GET", path)["metadata"]["annotations"][role]
    with ward.but(path, notes("arn:aws:iam::ACCOUNT:role/trainyard-fetch"), notes(was)):
        found = [each for each in objects.accounts(ward.cluster, ward.settings) if each.state != "ok"]

    assert [(each.state, "placeholder" in each.says) for each in found] == [("warning", True)]


def test_kinds_that_are_not_served_are_told_with_the_versions_that_are(ward: Ward) -> None:
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/nodeclaims.karpenter.sh"
    with ward.without(crd):
        failed = [each for each in kinds.served(ward.cluster) if each.state == "failed"]

    assert [(each.about, "NodeClaim" in each.says) for each in failed] == [("karpenter.sh/v1", True)]
    assert "Install Karpenter" in failed[0].mend


def test_an_old_api_server_is_a_warning(monkeypatch: pytest.MonkeyPatch, ward: Ward) -> None:
    monkeypatch.setattr(ward.cluster, "read", lambda path: {"gitVersion": "v1.27.3-eks-1"})

    (found,) = kinds.version(ward.cluster)

    assert found.state == "warning"
    assert "Upgrade" in found.mend


def test_a_secret_is_looked_for_and_never_read(ward: Ward, spec: Spec) -> None:
    def look(cluster: Cluster) -> Finding:
        (found,) = objects.secrets(cluster, ward.settings, [spec])
        return found

    assert look(ward.cluster).state == "failed"
    assert "create secret generic hub-token" in look(ward.cluster).mend
    path = f"{NAMESPACES}/trainyard-jobs/secrets"
    ward.server.request("POST", path, {"metadata": {"name": "hub-token"}, "stringData": {"token": "s"}})
    try:
        assert look(ward.cluster).state == "ok"
        forbidden = look(account_of(ward))
        assert forbidden.state == "unknown"
        assert "kubectl -n trainyard-jobs get secret hub-token" in forbidden.mend
    finally:
        ward.server.request("DELETE", f"{path}/hub-token")


def test_rights_are_those_of_the_account_that_is_named(ward: Ward) -> None:
    nobody = list(rights.rights(account_of(ward, "system:serviceaccount:a:b"), ward.settings, "b"))

    assert {each.state for each in nobody} == {"failed"}
    assert "get pods/log in trainyard-jobs" in {each.about for each in nobody}


def test_a_server_without_reviews_leaves_rights_unknown(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainyard.errors import NotFound

    def create(body: Any) -> Any:
        raise NotFound("the server could not find the requested resource")

    monkeypatch.setattr(ward.cluster, "create", create)

    (found,) = rights.rights(ward.cluster, ward.settings, "somebody")

    assert found.state == "unknown"
