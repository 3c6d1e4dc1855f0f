from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.apiserver.validation.quantities import parse_quantity
from tests.local.apiserver.conftest import Http

PODS = "/api/v1/namespaces/default/pods"


def container(**more: Any) -> dict[str, Any]:
    return {"name": "c", "image": "i:1", **more}


def neuron(limits: Any, requests: Any = None) -> dict[str, Any]:
    resources = {"limits": limits, **({"requests": requests} if requests else {})}
    return {"containers": [container(resources=resources)]}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"containers": [{"name": "c"}]}, "spec.containers[0].image: Required value"),
        ({"containers": [container(), container()]}, 'spec.containers[1].name: Duplicate value: "c"'),
        ({"containers": [container(name="Bad")]}, "a lowercase RFC 1123 label must consist of"),
        ({"containers": [container()], "restartPolicy": "Once"}, 'restartPolicy: Unsupported value: "Once"'),
        (
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/v"}])]},
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (neuron({"aws.amazon.com/neuron": "1.5"}), "must be an integer"),
        (
            neuron({"aws.amazon.com/neuron": "2"}, {"aws.amazon.com/neuron": "1"}),
            "must be equal to aws.amazon.com/neuron limit of 2",
        ),
        (neuron({"cpu": "1"}, {"cpu": "2"}), "must be less than or equal to cpu limit of 1"),
        (neuron({"memory": "lots"}), "quantities must match the regular expression"),
        (neuron({"neuron": "1"}), "must be a standard resource type or fully qualified"),
    ],
)
async def test_a_pod_that_a_real_server_refuses_is_refused(
    http: Http, spec: dict[str, Any], said: str
) -> None:
    status, body = await http.call("POST", PODS, {"metadata": {"name": "p"}, "spec": spec})
    assert (status, body["reason"]) == (422, "Invalid")
    assert said in body["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"metadata": {"name": "p"}, "spec": {"containers": "c"}},
            "cannot unmarshal string into Go struct field",
        ),
        (
            {"metadata": {"name": "p", "labels": {"a": 1}}, "spec": {}},
            "cannot unmarshal number into Go struct field",
        ),
        (
            {"kind": "Pod", "apiVersion": "apps/v1", "metadata": {}},
            'no kind "Pod" is registered for version "apps/v1"',
        ),
    ],
)
async def test_a_body_of_the_wrong_types_is_a_bad_request(http: Http, body: Any, said: str) -> None:
    status, answer = await http.call("POST", PODS, body)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert said in answer["message"]


async def test_an_unknown_field_is_dropped_with_a_warning(http: Http) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [container(colour="red")]}}
    async with http.client.post(PODS, json=pod, headers=http.headers) as answer:
        made = await answer.json()
    assert answer.headers["Warning"] == '299 - "unknown field \\"spec.containers[0].colour\\""'
    assert "colour" not in made["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("plural", "policy", "said"),
    [
        ("apis/apps/v1/namespaces/default/deployments", "Never", 'supported values: "Always"'),
        ("apis/batch/v1/namespaces/default/jobs", "Always", 'supported values: "OnFailure", "Never"'),
    ],
)
async def test_a_template_takes_only_the_restart_policies_of_its_kind(
    http: Http, plural: str, policy: str, said: str
) -> None:
    labels = {"app": "x"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container()], "restartPolicy": policy},
    }
    spec = {"template": template} | ({"selector": {"matchLabels": labels}} if "apps" in plural else {})
    status, body = await http.call("POST", f"/{plural}", {"metadata": {"name": "w"}, "spec": spec})
    assert status == 422
    assert f'spec.template.spec.restartPolicy: Unsupported value: "{policy}": {said}' in body["message"]


async def test_an_immutable_config_map_stays_what_it_is(http: Http) -> None:
    maps = "/api/v1/namespaces/default/configmaps"
    await http.call("POST", maps, {"metadata": {"name": "c"}, "data": {"a": "1"}, "immutable": True})
    patch, media = {"data": {"a": "2"}}, "application/merge-patch+json"
    status, body = await http.call("PATCH", f"{maps}/c", patch, Content_Type=media)
    assert status == 422
    assert "data: Forbidden: field is immutable when `immutable` is set" in body["message"]


async def test_a_job_cannot_change_its_template(http: Http) -> None:
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    template = {"spec": {"containers": [container()], "restartPolicy": "Never"}}
    _, made = await http.call("POST", jobs, {"metadata": {"name": "j"}, "spec": {"template": template}})
    made["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1"
    status, body = await http.call("PUT", f"{jobs}/j", made)
    assert status == 422
    assert "spec.template" in body["message"]
    assert "field is immutable" in body["message"]


async def test_a_cluster_address_is_given_once_and_given_back(http: Http) -> None:
    services = "/api/v1/namespaces/default/services"
    spec = {"ports": [{"port": 80}]}
    _, one = await http.call("POST", services, {"metadata": {"name": "a"}, "spec": spec})
    wanted = {**spec, "clusterIP": one["spec"]["clusterIP"]}
    status, _ = await http.call("POST", services, {"metadata": {"name": "b"}, "spec": wanted})
    assert status == 422
    await http.call("DELETE", f"{services}/a")
    status, _ = await http.call("POST", services, {"metadata": {"name": "b"}, "spec": wanted})
    assert status == 201


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", "1"),
        ("500m", "0.5"),
        ("1Gi", "1073741824"),
        ("1.5k", "1500"),
        ("1e3", "1000"),
        (".5", "0.5"),
        ("-2", "-2"),
    ],
)
def test_a_quantity_is_read_exactly(text: str, amount: str) -> None:
    assert parse_quantity(text) == Decimal(amount)


@settings(max_examples=60)
@given(st.text(alphabet="0123456789.+-eEmkKMGi", max_size=6))
def test_no_text_breaks_the_quantity_parser(text: str) -> None:
    try:
        parse_quantity(text)
    except ValueError:
        pass
