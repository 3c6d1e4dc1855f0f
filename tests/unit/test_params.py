"""One schema for form, REST and plan: what it takes plan takes, what it can refuse REST refuses with 400."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from tests.support.models import entry, write_entry
from trainyard import catalogue
from trainyard.errors import Refused
from trainyard.params import params_schema
from trainyard.spec import Request, Spec
from trainyard_cli.releasing import parse_sets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("releases")
    write_entry(found, entry())
    return found


@pytest.fixture(scope="module")
def schema(folder: Path) -> dict[str, dict[str, Any]]:
    return params_schema(folder)


def takes(schema: dict[str, Any], value: Any) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


def test_every_param_is_a_valid_json_schema_without_references(schema: dict[str, dict[str, Any]]) -> None:
    for each in schema.values():
        Draft202012Validator.check_schema(each)
    assert "$ref" not in str(schema)
    assert set(schema) == {"release", "revision", "overrides", "request"}


def test_the_form_offers_the_entries_of_the_catalogue(schema: dict[str, dict[str, Any]]) -> None:
    assert schema["release"]["enum"] == ["llama"]
    assert not takes(schema["release"], "mistral")


@pytest.mark.parametrize("name", ["revision", "overrides", "request"])
def test_what_is_left_empty_is_taken(schema: dict[str, dict[str, Any]], name: str) -> None:
    assert takes(schema[name], None)


@pytest.mark.parametrize(
    "overrides",
    [
        {"unknown": 1},
        {"name": "other"},
        {"hardware": {"tensor_paralel": 4}},
        {"hardware": {"tensor_parallel": "four"}},
        {"hardware": {"tensor_parallel": 0}},
        {"hardware": {"tensor_parallel": 129}},
        {"compile": {"memory": "lots"}},
        {"compile": {"annotations": {"a": 1}}},
        {"model": {"repo": "../x"}},
        {"model": None},
        {"rollout": {"steps": [{"weight": 100}]}},
        {"rollout": {"steps": [{"observe_seconds": 3}]}},
        {"rollout": {"steps": [{"weight": 10 * n} for n in range(1, 6)]}},
        {"rollout": {"smoke_prompts": []}},
        {"rollout": {"objectives": {"max_error_rate": 1}}},
        [],
        "x",
    ],
)
def test_an_override_that_breaks_a_rule_is_refused_by_the_schema_and_by_plan(
    folder: Path, schema: dict[str, dict[str, Any]], overrides: Any
) -> None:
    assert not takes(schema["overrides"], overrides)
    if isinstance(overrides, dict):
        with pytest.raises(Refused):
            catalogue.resolve(folder, Request(release="llama", overrides=overrides))


@pytest.mark.parametrize("revision", ["../x", "a b", "", "a..b", "x" * 129])
def test_a_revision_that_breaks_a_rule_is_refused_by_the_schema(
    schema: dict[str, dict[str, Any]], revision: str
) -> None:
    assert not takes(schema["revision"], revision)


def test_a_whole_spec_may_be_laid_over(folder: Path, schema: dict[str, dict[str, Any]]) -> None:
    """The way back does so: it asks for an earlier release with all of its fields, nulls included."""
    spec = catalogue.resolve(folder, Request(release="llama"))
    overrides = spec.model_dump(mode="json", exclude={"name", "bedrock"})
    assert takes(schema["overrides"], overrides)
    assert catalogue.resolve(folder, Request(release="llama", overrides=overrides)) == spec


def values(schema: dict[str, Any], defaults: Any) -> st.SearchStrategy[Any]:
    """Values that a schema accepts; strings are those that the entry has, for patterns say little of
    meaning."""
    if "anyOf" in schema:
        return st.one_of([values(each, defaults) for each in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        optional = {
            name: values(each, (defaults or {}).get(name) if isinstance(defaults, dict) else None)
            for name, each in schema["properties"].items()
        }
        required = {name: optional.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(required, optional=optional)
    if kind == "object":
        return st.dictionaries(st.sampled_from(["a.b/c", "d"]), st.text(max_size=3), max_size=2)
    if kind == "array":
        return st.lists(
            values(schema["items"], None),
            min_size=schema.get("minItems", 0),
            max_size=schema.get("maxItems", 2),
        )
    if kind == "integer":
        return st.integers(schema.get("minimum"), schema.get("maximum"))
    if kind == "number":
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        return st.floats(
            low,
            schema.get("maximum", schema.get("exclusiveMaximum", 1e6)),
            exclude_min="exclusiveMinimum" in schema,
            exclude_max="exclusiveMaximum" in schema,
        )
    if kind == "null":
        return st.none()
    if kind == "boolean":
        return st.booleans()
    assert kind == "string", schema
    samples = {"memory": ["1Gi", "20Ti"]}
    known = (
        [text for texts in samples.values() for text in texts]
        if "Gi" in schema.get("description", "")
        else []
    )
    return st.sampled_from([*known, *([defaults] if isinstance(defaults, str) else [])] or ["llama", "a-b"])


@given(st.data())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=25,
)
def test_whatever_the_schema_takes_plan_takes_but_for_what_fields_say_only_together(
    folder: Path, schema: dict[str, dict[str, Any]], data: st.DataObject
) -> None:
    shape = {key: schema["overrides"][key] for key in ("properties", "additionalProperties")}
    overrides = data.draw(values({"type": "object", **shape}, entry()))
    try:
        Draft202012Validator(schema["overrides"]).validate(overrides)
    except ValidationError:
        return  # a sample string that does not fit its pattern
    try:
        catalogue.resolve(folder, Request(release="llama", overrides=overrides))
    except Refused as error:
        problems = error.problems
    else:
        problems = []
    # A part that its entry lacks has to be given whole, which the schema of a part of it cannot say.
    together = ("Value error, ", "Field required")
    assert [problem for problem in problems if not problem.rule.startswith(together)] == []


def test_the_entry_itself_meets_the_specs_own_schema() -> None:
    Draft202012Validator(Spec.model_json_schema()).validate(entry())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["serving.replicas=2"], {"serving": {"replicas": 2}}),
        (["a.b=x", "a.c=true", "a.d=null"], {"a": {"b": "x", "c": True, "d": None}}),
        (['serving.annotations."x.y/z"={"slow": 2}'], {"serving": {"annotations": {"x.y/z": '{"slow": 2}'}}}),
        (["model.revision=2024-01-01"], {"model": {"revision": "2024-01-01"}}),
        (["model.revision=2024-13-45"], {"model": {"revision": "2024-13-45"}}),
        (["a=1e3"], {"a": "1e3"}),
        (["a=b=c"], {"a": "b=c"}),
        (["a=*x"], {"a": "*x"}),
        (["a="], {"a": ""}),
    ],
)
def test_sets_on_the_command_line_become_overrides(words: list[str], found: dict[str, Any]) -> None:
    assert parse_sets(words) == found


@pytest.mark.parametrize("words", [["a"], ["=1"], ["a..b=1"], ["a=1", "a.b=2"], [".=1"]])
def test_sets_that_say_no_field_are_refused(words: list[str]) -> None:
    with pytest.raises(Refused, match="--set"):
        parse_sets(words)
