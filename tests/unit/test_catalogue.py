"""What is refused before anything is read from the Hub: names, YAML, fields. Each with a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import entry, write_entry
from trainyard import catalogue
from trainyard.errors import Problem, Refused
from trainyard.spec import MAX_STEPS, Request, bytes_of, merge, parse_request, parse_spec

REPOSITORY = Path(__file__).parents[2]


def refusal(folder: Path, text: str | bytes, name: str = "llama") -> Problem:
    body = text.encode() if isinstance(text, str) else text
    (folder / f"{name}.yaml").write_bytes(body)
    with pytest.raises(Refused) as caught:
        catalogue.resolve(folder, Request(release=name))
    problem = caught.value.problems[0]
    assert problem.field
    assert problem.rule
    assert problem.remedy
    return problem


def test_an_unknown_release_is_refused_with_the_names_that_are_known(tmp_path: Path) -> None:
    write_entry(tmp_path, entry())
    write_entry(tmp_path, entry(name="qwen"))
    with pytest.raises(Refused) as caught:
        catalogue.resolve(tmp_path, Request(release="mistral"))
    problem = caught.value.problems[0]
    assert (problem.field, problem.value) == ("release", "mistral")
    assert "Known: llama, qwen" in problem.remedy


@pytest.mark.parametrize(
    "name", ["../llama", "a/b", "..", ".", "", "/etc/passwd", "Llama", "a" * 41, "llama\n"]
)
def test_a_name_that_could_leave_the_catalogue_is_refused(tmp_path: Path, name: str) -> None:
    write_entry(tmp_path, entry())
    with pytest.raises(Refused, match="release"):
        catalogue.load(tmp_path, name)
    with pytest.raises(Refused, match="release"):
        parse_request({"release": name})


@pytest.mark.parametrize(
    "request_",
    [
        {"release": "llama", "revision": "../../etc"},
        {"release": "llama", "revision": "a//b"},
        {"release": "llama", "revision": "a b"},
        {"release": "llama", "revision": "x" * 129},
        {"release": "llama", "request": "a/b"},
        {"release": "llama", "request": "x" * 65},
        {"release": "llama", "overrides": []},
        {"release": "llama", "unknown": 1},
        {},
        [],
        None,
    ],
)
def test_a_request_that_breaks_a_rule_is_refused_with_its_field(request_: Any) -> None:
    with pytest.raises(Refused) as caught:
        parse_request(request_)
    assert all(problem.field and problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize(
    "repo", ["llama", "../meta/llama", "meta/../llama", "meta/llama/x", "meta/.git", "https://a/b"]
)
def test_a_repository_that_is_no_org_and_name_is_refused(repo: str) -> None:
    with pytest.raises(Refused, match=r"model\.repo"):
        parse_spec(entry(model={"repo": repo}), "here")


def test_malformed_yaml_is_refused_with_line_and_column(tmp_path: Path) -> None:
    problem = refusal(tmp_path, "name: llama\nmodel:\n  repo: [meta/llama\n")
    assert "line 4, column 1" in problem.rule


def test_an_alias_is_refused_where_it_stands(tmp_path: Path) -> None:
    problem = refusal(tmp_path, "name: llama\nx: &a [1]\ny: *a\n")
    assert "aliases are not allowed" in problem.rule
    assert "line 3, column 4" in problem.rule


def test_a_yaml_bomb_is_refused_without_being_unfolded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "aliases" in refusal(tmp_path, "\n".join(["name: llama", *lines])).rule


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("x" * 70_000, "larger than"),
        ("[" * 60_000, "nested"),
        ("{a: " * 15_000, "nested"),
        (b"name: \xff\xfe", "no YAML"),
        ("name: 2024-13-45\n", "no YAML"),
        ("name: !!python/object/apply:os.system [id]\n", "no YAML"),
        ("name: \x00", "no YAML"),
        ("- llama\n", "mapping"),
        ("", "mapping"),
        ("name: other\n", "its own name"),
        ("name: llama\nname: llama\n", "twice"),
        ("name: llama\nmodel:\n  repo: a/b\n  repo: c/d\n", "twice"),
    ],
)
def test_what_is_no_catalogue_entry_is_refused(tmp_path: Path, text: str | bytes, word: str) -> None:
    assert word in refusal(tmp_path, text).rule


@given(st.binary(max_size=200))
def test_no_content_of_a_file_raises_anything_but_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, body: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "llama.yaml").write_bytes(body)
    with pytest.raises(Refused):
        catalogue.resolve(folder, Request(release="llama"))


@given(st.text(alphabet="abn:-[]{}!&*? \n'\"|>#%@0123456789._", max_size=60))
def test_no_yaml_raises_anything_but_a_refusal(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "llama.yaml").write_text(f"name: llama\n{text}\n")
    with pytest.raises(Refused):
        catalogue.resolve(folder, Request(release="llama"))


def test_an_unknown_field_is_refused_by_its_path(tmp_path: Path) -> None:
    document = entry()
    document["hardware"]["tensor_paralel"] = 4
    problem = refusal(tmp_path, yaml.safe_dump(document))
    assert problem.field == "hardware.tensor_paralel"
    assert "spelling" in problem.remedy


def test_all_broken_fields_are_told_at_once() -> None:
    document = entry(compile={"batch_size": 0, "memory": "lots"}, model={})
    with pytest.raises(Refused) as caught:
        parse_spec(document, "here")
    assert {problem.field for problem in caught.value.problems} == {
        "compile.batch_size",
        "compile.memory",
        "model.repo",
    }


@pytest.mark.parametrize("number", [".inf", ".nan", "-1", "0"])
def test_an_objective_that_is_no_positive_number_is_refused(tmp_path: Path, number: str) -> None:
    text = yaml.safe_dump(entry()).replace(
        "rollout:", f"rollout:\n  objectives:\n    ttft_p95_seconds: {number}"
    )
    assert refusal(tmp_path, text).field == "rollout.objectives.ttft_p95_seconds"


@pytest.mark.parametrize("weights", [[50, 25], [5, 5], [0, 5], [5, 100]])
def test_weights_must_rise_within_one_and_ninety_nine(weights: list[int]) -> None:
    with pytest.raises(Refused, match=r"rollout"):
        parse_spec(entry(rollout={"steps": [{"weight": weight} for weight in weights]}), "here")


def test_more_steps_than_the_dag_has_tasks_are_refused() -> None:
    steps = [{"weight": 10 * number} for number in range(1, MAX_STEPS + 2)]
    with pytest.raises(Refused, match=r"rollout\.steps"):
        parse_spec(entry(rollout={"steps": steps}), "here")


def test_a_name_that_no_service_could_carry_is_refused() -> None:
    with pytest.raises(Refused, match="name"):
        parse_spec(entry(name="7b-model"), "here")


def test_an_override_is_laid_over_the_entry(tmp_path: Path) -> None:
    write_entry(tmp_path, entry())
    request = Request(release="llama", revision="v2", overrides={"compile": {"batch_size": 16}})
    spec = catalogue.resolve(tmp_path, request)
    assert (spec.compile.batch_size, spec.compile.sequence_length) == (16, 4096)
    assert spec.model.revision == "v2"


def test_an_override_cannot_rename_the_entry(tmp_path: Path) -> None:
    write_entry(tmp_path, entry())
    with pytest.raises(Refused) as caught:
        catalogue.resolve(tmp_path, Request(release="llama", overrides={"name": "other"}))
    assert caught.value.problems[0].field == "overrides.name"


def test_an_unknown_field_in_an_override_is_refused(tmp_path: Path) -> None:
    write_entry(tmp_path, entry())
    with pytest.raises(Refused, match=r"serving\.replica "):
        catalogue.resolve(tmp_path, Request(release="llama", overrides={"serving": {"replica": 2}}))


@given(
    st.dictionaries(
        st.text("ab", min_size=1, max_size=2), st.integers() | st.dictionaries(st.text("xy"), st.none())
    )
)
def test_laying_over_nothing_or_itself_changes_nothing(document: dict[str, Any]) -> None:
    assert merge(document, {}) == document
    assert merge(document, document) == document
    assert merge({}, document) == document


@pytest.mark.parametrize(("text", "size"), [("1Ki", 1024), ("64Gi", 64 * 2**30), ("2Ti", 2 * 2**40)])
def test_quantities_are_powers_of_two(text: str, size: int) -> None:
    assert bytes_of(text) == size


def test_every_entry_of_the_catalogue_is_valid_and_has_no_more_steps_than_the_dag() -> None:
    folder = REPOSITORY / "include" / "releases"
    found = [catalogue.resolve(folder, Request(release=name)) for name in catalogue.names(folder)]
    assert found
    assert max(len(spec.rollout.steps) for spec in found) <= MAX_STEPS
