from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.apiserver.errors import ApiError
from local.apiserver.models import definition
from local.apiserver.patches.apply import apply_configuration
from local.apiserver.patches.fieldsets import from_fields, to_fields
from local.apiserver.patches.merging import json_patch, merge_patch
from local.apiserver.patches.ownership import Manager, read_entries, track_update
from local.apiserver.patches.strategic import strategic_merge

POD, DEPLOYMENT = definition("V1Pod"), definition("V1Deployment")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return value


@settings(max_examples=40)
@given(JSON, JSON)
def test_a_merge_patch_applied_twice_is_applied_once(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@settings(max_examples=40)
@given(JSON)
def test_a_merge_patch_onto_nothing_gives_itself_without_nulls(patch: Any) -> None:
    assert merge_patch(None, patch) == without_nulls(patch)


@pytest.mark.parametrize(
    "operations", [[{"op": "remove", "path": "/none"}], [{"op": "bad"}], {"a": 1}, [3], "x"]
)
def test_a_json_patch_that_does_not_fit_is_refused(operations: Any) -> None:
    with pytest.raises(ApiError) as error:
        json_patch({"a": 1}, operations)
    assert error.value.code == 422


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": list(containers), **spec}}


def test_strategic_merge_joins_containers_and_their_environment_by_name() -> None:
    old = pod({"name": "a", "image": "i", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "j"})
    patch = {"spec": {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]}}
    a = next(c for c in strategic_merge(old, patch, POD)["spec"]["containers"] if c["name"] == "a")
    assert a["image"] == "i"
    assert {e["name"]: e["value"] for e in a["env"]} == {"X": "1", "Y": "2"}
    assert old["spec"]["containers"][0]["env"] == [{"name": "X", "value": "1"}]


def test_strategic_merge_replaces_atomic_lists_and_joins_finalizers() -> None:
    old = {**pod({"name": "a", "command": ["x", "y"]}), "metadata": {"finalizers": ["f"]}}
    patch = {"metadata": {"finalizers": ["g"]}, "spec": {"containers": [{"name": "a", "command": ["z"]}]}}
    new = strategic_merge(old, patch, POD)
    assert new["spec"]["containers"][0]["command"] == ["z"]
    assert new["metadata"]["finalizers"] == ["f", "g"]


@pytest.mark.parametrize(
    ("patch", "names"),
    [
        ({"containers": [{"name": "a", "$patch": "delete"}]}, ["b", "c"]),
        ({"containers": [{"$patch": "replace"}, {"name": "d"}]}, ["d"]),
        ({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}, ["c", "b", "a"]),
    ],
)
def test_strategic_merge_follows_directives(patch: dict[str, Any], names: list[str]) -> None:
    old = pod({"name": "a"}, {"name": "b"}, {"name": "c"})
    new = strategic_merge(old, {"spec": patch}, POD)
    assert [c["name"] for c in new["spec"]["containers"]] == names


def test_strategic_merge_refuses_an_item_without_its_key() -> None:
    with pytest.raises(ApiError) as error:
        strategic_merge(pod({"name": "a"}), {"spec": {"containers": [{"image": "x"}]}}, POD)
    assert error.value.code == 400


ELEMENTS = st.one_of(
    st.sampled_from(["f:a", "f:b", "f:c"]), st.sampled_from(['k:{"name":"x"}', 'k:{"name":"y"}', 'v:"z"'])
)
PATHS = st.sets(st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple), max_size=8)


@settings(max_examples=40)
@given(PATHS)
def test_managed_fields_survive_being_written_and_read(paths: set[tuple[str, ...]]) -> None:
    assert from_fields(to_fields(paths)) == paths


def apply(
    live: Any, config: Any, manager: str, force: bool = False, schema: Any = DEPLOYMENT
) -> dict[str, Any]:
    return apply_configuration(live, config, schema, Manager(manager, "Apply", "apps/v1"), "now", force)


def deployment(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    template = {"spec": {"containers": list(containers)}}
    return {"metadata": {"name": "d"}, "spec": {**spec, "template": template}}


def test_applying_less_removes_what_nobody_else_owns() -> None:
    live = apply(
        None, deployment({"name": "a", "image": "i"}, {"name": "b", "image": "j"}, replicas=3), "one"
    )
    live = apply(live, deployment({"name": "b", "image": "j"}), "two")
    after = apply(live, deployment(), "one")
    assert [c["name"] for c in after["spec"]["template"]["spec"]["containers"]] == ["b"]
    assert "replicas" not in after["spec"]


def test_a_second_manager_conflicts_unless_it_forces_and_then_owns_the_field() -> None:
    live = apply(None, deployment({"name": "a", "image": "i"}, replicas=1), "one")
    with pytest.raises(ApiError) as error:
        apply(live, deployment({"name": "a", "image": "j"}, replicas=2), "two")
    assert error.value.code == 409
    assert 'conflicts with "one":' in error.value.message
    assert '- .spec.template.spec.containers[name="a"].image' in error.value.message
    after = apply(live, deployment({"name": "a", "image": "j"}, replicas=2), "two", force=True)
    owners = {e.manager.name: e.fields for e in read_entries(after)}
    assert ("f:spec", "f:replicas") in owners["two"]
    assert ("f:spec", "f:replicas") not in owners["one"]


def test_applying_the_same_value_shares_the_field_without_conflict() -> None:
    live = apply(None, deployment(replicas=1), "one")
    after = apply(live, deployment(replicas=1), "two")
    assert all(("f:spec", "f:replicas") in e.fields for e in read_entries(after))
    assert apply(after, deployment(), "one")["spec"]["replicas"] == 1


def test_an_update_takes_over_what_it_changes() -> None:
    live = apply(None, deployment(replicas=1, paused=True), "one")
    new = deployment(replicas=2, paused=True)
    new["metadata"] = dict(live["metadata"])
    track_update(live, new, DEPLOYMENT, Manager("kubectl", "Update", "apps/v1"), "now")
    owners = {e.manager.name: e.fields for e in read_entries(new)}
    assert ("f:spec", "f:replicas") in owners["kubectl"]
    assert ("f:spec", "f:replicas") not in owners["one"]
    assert ("f:spec", "f:paused") in owners["one"]


NAMES = st.lists(st.sampled_from("abcd"), unique=True, max_size=4)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), NAMES), max_size=6))
def test_what_is_applied_last_by_each_manager_is_what_remains(applies: list[tuple[str, list[str]]]) -> None:
    live: Any = None
    last: dict[str, list[str]] = {}
    for manager, names in applies:
        live = apply(live, deployment(*({"name": n} for n in names)), manager)
        last[manager] = names
    if live is not None:
        kept = {c["name"] for c in live["spec"]["template"]["spec"].get("containers") or ()}
        assert kept == {n for names in last.values() for n in names}
