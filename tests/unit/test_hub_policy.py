from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.errors import Refused
from trainyard.hub_policy import MAX_FILE, HubFile, select

DIGEST = "0" * 64


def file(path: str, size: int = 1000, mode: str | None = None) -> HubFile:
    return HubFile(path, size, DIGEST if path.endswith(".safetensors") else None, "1" * 40, mode)


GOOD = [
    file("config.json"),
    file("model-00001-of-00002.safetensors"),
    file("model-00002-of-00002.safetensors"),
]


def test_what_serves_is_taken_and_the_rest_is_left_with_a_reason() -> None:
    others = ["tokenizer.json", "tokenizer.model", "merges.txt", "chat_template.jinja", "LICENSE"]
    needless = [
        "README.md",
        "figure.png",
        "original/consolidated.00.pth",
        "onnx/model.onnx",
        ".gitattributes",
    ]
    selection = select([*GOOD, *map(file, others), *map(file, needless)])
    assert {found.path for found in selection.take} == {found.path for found in GOOD} | set(others)
    assert {path for path, why in selection.left if why} == set(needless)
    assert selection.size == 8000


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ("pytorch_model.bin", "pickles can run code"),
        ("training_args.PT", "pickles can run code"),
        ("modeling_x.py", "code from a model repository"),
        ("sub/libx.so", "code from a model repository"),
        ("../config.json", "stays below its folder"),
        ("/etc/passwd", "relative"),
        ("a\nb.json", "control characters"),
        ("a\\b.json", "backslash"),
        ("original/../../x", "stays below its folder"),
    ],
)
def test_a_file_that_is_dangerous_is_refused_by_name_rule_and_way_out(bad: str, rule: str) -> None:
    with pytest.raises(Refused, match=rule) as caught:
        select([*GOOD, file(bad)])
    problem = caught.value.problems[0]
    assert problem.value == bad
    assert problem.remedy


def test_a_second_form_of_the_same_weights_is_left_whatever_it_is() -> None:
    # As in mistralai/Mistral-7B-Instruct-v0.3 and mistralai/Mixtral-8x7B-Instruct-v0.1.
    second = ["consolidated.safetensors", "consolidated.00.pt", "consolidated.01.pth"]
    selection = select([*GOOD, *map(file, second)])
    assert [found.path for found in selection.take] == sorted(found.path for found in GOOD)
    assert {path for path, _ in selection.left} == set(second)
    # Alone it is no second form: a pickle is refused, safetensors are the weights.
    with pytest.raises(Refused, match="pickles"):
        select([GOOD[0], file("consolidated.00.pt")])
    assert select([GOOD[0], file("consolidated.safetensors")]).size == 2000


def test_a_repository_of_gguf_files_is_refused_as_such() -> None:
    with pytest.raises(Refused, match="GGUF"):
        select([GOOD[0], file("tiny.Q4_K_M.gguf")])


def test_links_and_submodules_are_refused() -> None:
    for mode, rule in (("120000", "symlink"), ("160000", "submodule")):
        with pytest.raises(Refused, match=rule):
            select([*GOOD, file("x.json", mode=mode)])


@pytest.mark.parametrize("where", [{}, {"text_config": {}}])
def test_config_that_makes_loaders_run_code_is_refused_wherever_it_says_so(where: dict[str, object]) -> None:
    section: dict[str, object] = {"auto_map": {"AutoModel": "modeling_x.X"}}
    config = dict.fromkeys(where, section) or section
    with pytest.raises(Refused, match="auto_map"):
        select(GOOD, config)
    select(GOOD, {"architectures": ["LlamaForCausalLM"]})


def test_absurd_sizes_are_refused() -> None:
    for path, size in (("model.safetensors", MAX_FILE + 1), ("tokenizer.json", 2 << 30), ("x.json", -1)):
        with pytest.raises(Refused, match="size"):
            select([*GOOD, file(path, size)])


def test_a_repository_without_config_or_weights_is_refused() -> None:
    with pytest.raises(Refused, match=r"config\.json"):
        select(GOOD[1:])
    with pytest.raises(Refused, match="safetensors"):
        select(GOOD[:1])


def test_a_pointer_file_is_not_taken_for_weights() -> None:
    with pytest.raises(Refused, match="LFS pointer"):
        select([GOOD[0], HubFile("model.safetensors", 134, None, "1" * 40)])


def test_every_broken_rule_is_told_at_once() -> None:
    with pytest.raises(Refused) as caught:
        select([*GOOD, file("a.py"), file("b.bin"), file("../c")], {"auto_map": {}})
    assert {
        problem.value if isinstance(problem.value, str) else "auto_map" for problem in caught.value.problems
    } == {
        "a.py",
        "b.bin",
        "../c",
        "auto_map",
    }


@given(st.lists(st.builds(HubFile, st.text(), st.integers(), st.none(), st.just("1" * 40), st.none())))
def test_whatever_a_hub_lists_is_sorted_or_refused(files: list[HubFile]) -> None:
    try:
        selection = select([*GOOD, *files])
    except Refused:
        return
    assert all(".." not in found.path.split("/") and found.path[0] != "/" for found in selection.take)
