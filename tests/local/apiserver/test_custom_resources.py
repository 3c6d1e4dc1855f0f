from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local.apiserver.crds import read_definitions, resources_of
from tests.local.apiserver.conftest import ROOT, SHARED, Http, Kubectl

OURS = {
    d["metadata"]["name"]: d
    for f in sorted((ROOT / "local" / "crds").glob("*.yaml"))
    for d in read_definitions(f)
}
MERGE = "application/merge-patch+json"


def facts(definition: dict[str, Any]) -> dict[str, Any]:
    """What a client can tell of a definition besides its schema."""
    spec = definition["spec"]
    versions = {
        v["name"]: (v["storage"], v.get("subresources"), v.get("additionalPrinterColumns"))
        for v in spec["versions"]
        if v["served"]
    }
    return {"group": spec["group"], "names": spec["names"], "scope": spec["scope"], "versions": versions}


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_definition_looks_like_the_original(name: str) -> None:
    found = [f for f in (SHARED / "crds").glob("*.yaml") if f.name.endswith(f"_{name.split('.')[0]}.yaml")]
    if not found:
        pytest.skip("the original definitions are not beside this checkout")
    (original,) = read_definitions(found[0])
    assert facts(OURS[name]) == facts(original)


WIDGETS = "/apis/example.com/v1/widgets"


def widget_definition(schema: dict[str, Any], **version: Any) -> dict[str, Any]:
    spec_schema = {"type": "object", "properties": {"spec": schema}}
    first = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": spec_schema},
        **version,
    }
    return {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [first],
        },
    }


async def define(http: Http, schema: dict[str, Any], **version: Any) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    status, body = await http.call("POST", path, widget_definition(schema, **version))
    assert status == 201, body


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"type": "integer"}, "x", 'spec.f in body must be of type integer: "string"'),
        ({"type": "integer", "minimum": 2}, 1, "spec.f in body should be greater than or equal to 2"),
        ({"type": "string", "enum": ["a", "b"]}, "c", 'Unsupported value: "c": supported values: "a", "b"'),
        ({"type": "string", "pattern": "^a+$"}, "b", "spec.f in body should match '^a+$'"),
        ({"type": "string", "pattern": "^(?i)(a|b)$"}, "c", "spec.f in body should match '^(?i)(a|b)$'"),
        ({"type": "string", "maxLength": 2}, "abc", "Too long: may not be more than 2 bytes"),
        ({"type": "string", "minLength": 2}, "a", "spec.f in body should be at least 2 chars long"),
        ({"type": "array", "maxItems": 1}, [1, 2], "Too many: 2: must have at most 1 items"),
        ({"type": "array", "minItems": 1}, [], "spec.f in body should have at least 1 items"),
        ({"type": "array", "x-kubernetes-list-type": "set"}, ["a", "a"], 'spec.f[1]: Duplicate value: "a"'),
        ({"type": "object", "required": ["g"]}, {}, "spec.f.g: Required value"),
        ({"type": "string", "format": "date-time"}, "soon", "must be of type date-time"),
        ({"x-kubernetes-int-or-string": True}, True, "must be of type integer,string"),
        ({"anyOf": [{"type": "string"}, {"type": "boolean"}]}, 1, "at least one schema (anyOf)"),
        ({"not": {"enum": [1]}}, 1, "must not validate the schema (not)"),
    ],
)
async def test_a_value_that_the_schema_refuses_is_refused(
    http: Http, schema: dict[str, Any], value: Any, said: str
) -> None:
    await define(http, {"type": "object", "properties": {"f": schema}})
    status, body = await http.call("POST", WIDGETS, {"metadata": {"name": "w"}, "spec": {"f": value}})
    assert (status, body["reason"]) == (422, "Invalid")
    assert said in body["message"]


async def test_defaults_are_filled_in_and_undeclared_fields_dropped(http: Http) -> None:
    inner = {"type": "object", "default": {}, "properties": {"a": {"type": "integer", "default": 1}}}
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    await define(http, {"type": "object", "properties": {"inner": inner, "free": free}})
    spec = {"undeclared": 1, "free": {"anything": [1, {"b": None}]}}
    _, body = await http.call("POST", WIDGETS, {"metadata": {"name": "w"}, "spec": spec})
    assert body["spec"] == {"inner": {"a": 1}, "free": {"anything": [1, {"b": None}]}}


async def test_strict_validation_names_the_undeclared_field(http: Http) -> None:
    await define(http, {"type": "object", "properties": {}})
    widget = {"metadata": {"name": "w"}, "spec": {"undeclared": 1}}
    status, body = await http.call("POST", WIDGETS + "?fieldValidation=Strict", widget)
    assert status == 400
    assert 'strict decoding error: unknown field "spec.undeclared"' in body["message"]


async def test_status_and_spec_change_apart(http: Http) -> None:
    await define(
        http, {"type": "object", "x-kubernetes-preserve-unknown-fields": True}, subresources={"status": {}}
    )
    _, made = await http.call("POST", WIDGETS, {"metadata": {"name": "w"}, "spec": {"a": 1}})
    made["spec"] = {"a": 2}
    _, put = await http.call("PUT", WIDGETS + "/w/status", made)
    assert (put["spec"], put["metadata"]["generation"]) == ({"a": 1}, 1)
    _, patched = await http.call("PATCH", WIDGETS + "/w", {"spec": {"a": 2}}, Content_Type=MERGE)
    assert patched["metadata"]["generation"] == 2


async def test_a_replace_must_name_the_version_it_replaces(http: Http) -> None:
    await define(http, {"type": "object"})
    await http.call("POST", WIDGETS, {"metadata": {"name": "w"}})
    status, body = await http.call("PUT", WIDGETS + "/w", {"metadata": {"name": "w"}, "spec": {}})
    assert status == 422
    assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in body["message"]


async def test_a_scale_leads_to_the_paths_of_the_definition(http: Http) -> None:
    scale = {"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.count"}
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}}
    await define(http, schema, subresources={"scale": scale})
    await http.call("POST", WIDGETS, {"metadata": {"name": "w"}, "spec": {"count": 1}})
    patch = {"spec": {"replicas": 4}}
    _, body = await http.call("PATCH", WIDGETS + "/w/scale", patch, Content_Type=MERGE)
    assert (body["kind"], body["spec"]["replicas"]) == ("Scale", 4)
    assert (await http.call("GET", WIDGETS + "/w"))[1]["spec"]["count"] == 4


async def test_printer_columns_come_from_the_definition(http: Http) -> None:
    columns = [
        {"name": "Ready", "type": "string", "jsonPath": '.spec.conditions[?(@.type=="Ready")].status'},
        {"name": "Zone", "type": "string", "jsonPath": r".metadata.labels.example\.com/zone"},
        {"name": "All", "type": "string", "jsonPath": ".spec.conditions[*].type"},
    ]
    await define(
        http,
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        additionalPrinterColumns=columns,
    )
    conditions = [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]
    meta = {"name": "w", "labels": {"example.com/zone": "z1"}}
    await http.call("POST", WIDGETS, {"metadata": meta, "spec": {"conditions": conditions}})
    _, table = await http.call("GET", WIDGETS, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "Ready", "Zone", "All"]
    assert table["rows"][0]["cells"] == ["w", "True", "z1", "Other,Ready"]


async def test_versions_of_one_kind_share_their_objects(http: Http) -> None:
    definition = widget_definition({"type": "object"})
    definition["spec"]["versions"].append(
        {**definition["spec"]["versions"][0], "name": "v1beta1", "storage": False}
    )
    await http.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    await http.call("POST", WIDGETS, {"metadata": {"name": "w"}})
    _, old = await http.call("GET", "/apis/example.com/v1beta1/widgets/w")
    assert old["apiVersion"] == "example.com/v1beta1"
    _, group = await http.call("GET", "/apis/example.com")
    assert group["preferredVersion"]["version"] == "v1"


async def test_a_definition_whose_name_is_not_its_own_is_refused(http: Http) -> None:
    definition = {**widget_definition({"type": "object"}), "metadata": {"name": "other.example.com"}}
    status, body = await http.call(
        "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition
    )
    assert status == 422
    assert 'must be spec.names.plural+"."+spec.group' in body["message"]


def test_every_definition_of_ours_is_served(kubectl: Kubectl) -> None:
    served = {r.plural for d in OURS.values() for r in resources_of(d)}
    listed = kubectl("api-resources", "-o", "name").out
    assert served <= {line.split(".")[0] for line in listed.split()}


def test_a_bad_node_pool_is_refused(kubectl: Kubectl) -> None:
    reference = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "n"}
    template = {"spec": {"nodeClassRef": reference, "requirements": [{"key": "k", "operator": "Near"}]}}
    pool = {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "bad"},
        "spec": {"template": template},
    }
    refused = kubectl("apply", "-f", "-", stdin=json.dumps(pool), fails=True)
    assert "spec.template.spec.requirements[0].operator: Unsupported value" in refused.err


def test_a_file_that_holds_no_definition_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text("kind: Pod\n")
    with pytest.raises(ValueError, match=r"pod\.yaml: holds something else than a CustomResourceDefinition"):
        read_definitions(path)
