"""Whatever a client sends, the answer is an object or a Status: nothing breaks the server."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.apiserver.__main__ import make_cluster
from local.apiserver.calls import Call, Cluster, Target
from local.apiserver.crds import after_write, resources_of
from local.apiserver.deleting import delete
from local.apiserver.errors import ApiError
from local.apiserver.resources import BUILT_IN, Resource
from local.apiserver.tables import in_form
from local.apiserver.validation.structural import check_definition
from local.apiserver.writing import APPLY, JSON_PATCH, MERGE, STRATEGIC, create, patch

LABELS = {"app": "x"}
POD_SPEC = {
    "containers": [
        {
            "name": "c",
            "image": "i:1",
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"limits": {"cpu": "1"}},
            "ports": [{"containerPort": 80}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "readinessProbe": {"httpGet": {"port": 80}},
        }
    ],
    "volumes": [{"name": "v", "projected": {"sources": [{"downwardAPI": {"items": []}}]}}],
    "tolerations": [{"key": "k", "operator": "Exists"}],
}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": POD_SPEC}
A = {"type": "string", "pattern": "a", "enum": ["a"]}
SPEC = {"type": "object", "required": ["a"], "properties": {"a": A, "b": {"type": "array", "items": A}}}
SCHEMA = {"openAPIV3Schema": {"type": "object", "properties": {"spec": SPEC}}}
VALID: dict[str, dict[str, Any]] = {
    "pods": {"spec": POD_SPEC},
    "deployments": {"spec": {"selector": {"matchLabels": LABELS}, "template": TEMPLATE, "replicas": 1}},
    "jobs": {"spec": {"template": {"spec": {**POD_SPEC, "restartPolicy": "Never"}}}},
    "services": {"spec": {"ports": [{"port": 80}], "selector": LABELS}},
    "configmaps": {"data": {"a": "b"}},
    "secrets": {"stringData": {"a": "b"}},
    "nodes": {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}, "status": {"addresses": []}},
    "events": {"involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "R"},
    "leases": {"spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}},
    "endpointslices": {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"port": 1}],
    },
    "rolebindings": {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]},
    "networkpolicies": {"spec": {"podSelector": {"matchLabels": LABELS}}},
    "customresourcedefinitions": {
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": SCHEMA}],
        }
    },
}
JUNK = st.sampled_from(
    [None, True, 0, -1, 1.5, "", "x", [], {}, [None], [{}], {"a": None}, {"name": {}}, "\u00e9" * 300]
)
MEDIA = st.sampled_from([JSON_PATCH, MERGE, STRATEGIC, APPLY])


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(s for k, v in below for s in spots(v, (*path, k)))]


@st.composite
def bodies(draw: st.DrawFn, valid: dict[str, Any], name: str) -> Any:
    """A valid object in which up to two parts are replaced by junk or left out."""
    root = [{"metadata": {"name": name, "labels": dict(LABELS)}, **copy.deepcopy(valid)}]
    for _ in range(draw(st.integers(0, 2))):
        *parents, last = draw(st.sampled_from(spots(root)[1:]))
        node: Any = root
        for step in parents:
            node = node[step]
        if draw(st.booleans()) and isinstance(node, dict):
            del node[last]
        else:
            node[last] = copy.deepcopy(draw(JUNK))
    return root[0]


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return make_cluster([])


def resource_of(plural: str) -> Resource:
    return next(r for r in BUILT_IN if r.plural == plural)


def make_call(
    cluster: Cluster, resource: Resource, name: str, body: Any, media: str = "", **query: str
) -> Call:
    namespace = "default" if resource.namespaced else ""
    target = Target(resource.group, resource.version, resource.plural, namespace, name)
    return Call(cluster, resource, target, query, "test", media, json.dumps(body).encode())


@pytest.mark.parametrize("plural", sorted(VALID))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_breaks_the_server(cluster: Cluster, plural: str, data: st.DataObject) -> None:
    resource = resource_of(plural)
    name = "things.example.com" if plural == "customresourcedefinitions" else "a"
    body = data.draw(bodies(VALID[plural], name))
    media, change = data.draw(MEDIA), data.draw(bodies(VALID[plural], name))
    try:
        made = create(make_call(cluster, resource, "", body)).body
        after_write(make_call(cluster, resource, "", body))
    except ApiError as error:
        assert 400 <= error.code < 500  # noqa: PT017
        return
    name = made["metadata"]["name"]
    try:
        if media == JSON_PATCH and isinstance(change, dict):
            change = [{"op": "replace", "path": f"/{k}", "value": v} for k, v in change.items()]
        call = make_call(cluster, resource, name, change, media, fieldManager="test", force="true")
        changed = patch(call).body
        if plural == "customresourcedefinitions":
            after_write(call)
            for thing in resources_of(changed):
                create(
                    make_call(cluster, thing, "", {"metadata": {"name": "t"}, "spec": {"a": "a", "b": ["a"]}})
                )
        in_form(resource, changed, "Table")
    except ApiError as error:
        assert 400 <= error.code < 500  # noqa: PT017
    finally:
        gone = make_call(cluster, resource, name, {})
        delete(gone)
        after_write(gone)


def test_a_schema_whose_required_names_are_no_names_is_refused() -> None:
    errors = check_definition({"type": "object", "required": [{}, "a"]}, "schema")
    assert [error.path for error in errors] == ["schema.required[0]"]
