"""Everything rendered is valid by the published CRDs and the built-in types; nonsense is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import COMPONENTS, OVERLAYS, composed, of_kind, rendered
from tests.support.validation import SHARED_CRDS, Schemas, structural

Object = dict[str, Any]
pytestmark = pytest.mark.skipif(
    not SHARED_CRDS.is_dir(), reason=f"the published CRDs are not beside this checkout ({SHARED_CRDS})"
)


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return Schemas()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_rendered_is_valid(schemas: Schemas, overlay: str) -> None:
    objects = rendered(overlay)

    assert len(objects) > 20
    assert [problem for each in objects for problem in schemas.problems(each)] == []


@pytest.mark.parametrize(
    "chosen", [*((each,) for each in COMPONENTS), COMPONENTS, COMPONENTS[::-1]], ids=",".join
)
def test_every_choice_of_components_is_valid(
    schemas: Schemas, chosen: tuple[str, ...], tmp_path: Path
) -> None:
    objects = composed(tmp_path, "overlays/eks", chosen)

    assert [problem for each in objects for problem in schemas.problems(each)] == []


def _into(*path: str | int, value: Any) -> Callable[[Object], None]:
    def change(obj: Object) -> None:
        node: Any = obj
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("kind", "name", "change", "words"),
    [
        ("NodePool", "neuron-trn2", _into("spec", "limit", value={}), "'limit' was unexpected"),
        ("NodePool", "neuron-trn2", _into("spec", "disruption", "consolidateAfter", value="soon"), "match"),
        ("NodePool", "neuron-trn2", _into("spec", "limits", value={"cpu": "many"}), "many"),
        ("NodePool", "neuron-trn2", _into("spec", "template", "spec", value={}), "required"),
        ("EC2NodeClass", "neuron", _into("spec", "instanceStorePolicy", value="RAID1"), "RAID1"),
        ("EC2NodeClass", "neuron", _into("spec", "tags", value=None), "None"),
        ("Gateway", "trainyard", _into("spec", "listeners", 0, "port", value="http"), "integer"),
        ("Gateway", "trainyard", _into("metadata", "lables", value={}), "'lables' was unexpected"),
        ("HTTPRoute", "trainyard.base", _into("spec", "rules", 0, "backendRef", value=[]), "backendRef"),
        ("PriorityClass", "trainyard-jobs", _into("value", value="high"), "integer"),
        ("PriorityClass", "trainyard-jobs", _into("preemptionPolicy", value="Sometimes"), "Sometimes"),
        ("NetworkPolicy", "servers", _into("spec", "policyTypes", value=["Egres"]), "Egres"),
        ("NetworkPolicy", "servers", _into("spec", "podSelectors", value={}), "podSelectors"),
        ("ClusterRole", "trainyard-airflow", _into("rules", 0, "verb", value=["get"]), "'verb'"),
        ("ServiceAccount", "trainyard-serve", _into("kind", value="ServiceAcount"), "no schema"),
        ("ServiceAccount", "trainyard-serve", _into("apiVersion", value="v2"), "no schema"),
    ],
)
def test_a_misspelt_field_and_a_wrong_type_are_refused(
    schemas: Schemas, kind: str, name: str, change: Callable[[Object], None], words: str
) -> None:
    obj = copy.deepcopy(of_kind(rendered("base"), kind)[name])
    change(obj)

    problems = schemas.problems(obj)

    assert problems
    assert words in problems[0]


def test_a_patch_may_leave_out_what_an_object_needs_but_misspell_nothing(schemas: Schemas) -> None:
    patch: Object = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 2}}

    assert schemas.problems(patch, partial=True) == []
    assert "required" in schemas.problems(patch)[0]
    assert "replica" in schemas.problems({**patch, "spec": {"replica": 2}}, partial=True)[0]
    removal = {**patch, "metadata": {"annotations": {"a": None}}}
    assert schemas.problems(removal, partial=True) == []


def test_rules_in_cel_are_listed_because_nobody_evaluates_them_here(schemas: Schemas) -> None:
    objects = rendered("overlays/eks")
    unevaluated = {each["kind"]: schemas.unevaluated(each) for each in objects}

    assert any(
        "must specify exactly one of ['role', 'instanceProfile']" in rule
        for rule in unevaluated["EC2NodeClass"]
    )
    assert {kind for kind, rules in unevaluated.items() if rules} == {
        "EC2NodeClass",
        "Gateway",
        "HTTPRoute",
        "NodePool",
    }


def test_structural_schemas_keep_their_own_words() -> None:
    found = structural(
        {
            "type": "object",
            "properties": {
                "port": {
                    "x-kubernetes-int-or-string": True,
                    "anyOf": [{"type": "integer"}, {"type": "string"}],
                },
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "none": {"type": "string", "nullable": True},
                "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            },
            "oneOf": [
                {"required": ["port"]},
                {"properties": {"map": {"maxProperties": 1}}, "required": ["map"]},
            ],
        }
    )

    assert found["additionalProperties"] is False
    assert "additionalProperties" not in found["oneOf"][1], "a part of oneOf declares no fields"
    assert found["properties"]["free"] == {"type": "object"}
    assert found["properties"]["none"] == {"type": ["string", "null"]}
    assert found["properties"]["map"]["additionalProperties"] == {"type": "integer"}
