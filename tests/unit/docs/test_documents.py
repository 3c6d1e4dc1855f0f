"""What the documents promise must be there: links, commands, fields, settings, errors, pictures."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from tests.unit.docs import rows
from trainyard import errors
from trainyard.spec import parse_spec
from trainyard_cli.main import app

REPOSITORY = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Headings as GitHub makes anchors of them."""
    heads = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), f"{document.name} links to {target}, which is not there"
        assert found.is_relative_to(REPOSITORY), f"{document.name} links out of the repository: {target}"
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), (
                f"{document.name}: no heading for {target}"
            )


def test_every_decision_is_in_the_index() -> None:
    folder = REPOSITORY / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for page in folder.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, f"{page.name} is not in the index"


def commands() -> Iterator[tuple[str, str]]:
    """(document, command line) of all indented lines and code spans that begin with a command of ours."""
    begins = re.compile(r"(?:\.venv/bin/)?(make|trainyard|python -m local\.stack)\b(?! sure)([^`\n#|]*)")
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
        for line in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
            if found := begins.match(line):
                yield document.name, f"{found[1]} {found[2].strip()}"


def test_make_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    named = {(where, line.split()[1]) for where, line in commands() if re.match(r"make [a-z]", line)}
    assert {name for _, name in named} >= {"demo", "test", "check", "up", "down", "status"}
    assert {pair for pair in named if pair[1] not in targets} == set()


def test_trainyard_commands_and_options_that_documents_name_exist() -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    seen = set()
    for where, line in commands():
        words = line.split()
        if words[0] != "trainyard" or len(words) < 2 or not words[1].isalpha():
            continue
        assert words[1] in known, f"{where}: there is no `trainyard {words[1]}`"
        seen.add(words[1])
        command = known[words[1]]
        if group := getattr(command, "commands", None):
            assert words[2] in group, f"{where}: there is no `trainyard {words[1]} {words[2]}`"
            command = group[words[2]]
        options = {option for parameter in command.params for option in parameter.opts}
        for word in words[2:]:
            assert not word.startswith("--") or word in options, (
                f"{where}: `{' '.join(words[:3])}` has no {word}"
            )
    assert {"release", "rollback", "status"} <= seen


def test_stack_commands_that_documents_name_exist() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local.stack", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for where, line in commands():
        if line.startswith("python -m local.stack"):
            verb = line.split()[3].split("|")[0]
            assert re.search(rf"^\s+{verb}\b", done.stdout, re.M), f"{where}: local.stack has no {verb}"


def table(name: str, pattern: str) -> list[str]:
    """The rows of a document whose first cell matches, without their last column."""
    found = []
    for line in read(name).splitlines():
        cells = line.split(" | ")
        if len(cells) > 3 and re.fullmatch(pattern, cells[0]):
            found.append(" | ".join(cells[:3]) + " |")
    return found


def test_the_spec_reference_has_every_field_and_no_other() -> None:
    wanted = [row.text for row in [*rows.spec_rows(), *rows.request_rows()]]
    assert sorted(table("docs/spec.md", r"\| `[a-z_.\[\]0-9]+`")) == sorted(wanted)


def test_the_settings_page_has_every_setting_and_no_other() -> None:
    wanted = [row.text for row in rows.settings_rows()]
    assert table("docs/settings.md", r"\| `TRAINYARD_[A-Z_]+`") == wanted


def test_the_smallest_spec_of_the_reference_is_a_spec() -> None:
    text = read("docs/spec.md").partition("## The smallest spec")[2].partition("\n## ")[0]
    assert parse_spec(yaml.safe_load(text), "docs/spec.md").rollout.steps


def test_the_runbook_explains_every_error() -> None:
    runbook = read("docs/runbook.md")
    bases = {"TrainyardError", "PermanentError", "TransientError"}
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.TrainyardError) and name not in bases
    }
    assert kinds
    assert {name for name in kinds if f"\n| `{name}` |" not in runbook} == set()


def tasks_of(dag: str) -> set[str]:
    """Task ids as the file says them; those of the steps by their numbers."""
    tree = ast.parse(read(f"dags/{dag}.py"))
    values = [
        keyword.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "task_id"
    ]
    named = {value.value for value in values if isinstance(value, ast.Constant)}
    from trainyard.spec import MAX_STEPS

    return {str(name) for name in named} | {f"step_{number}" for number in range(1, MAX_STEPS + 1)}


def test_the_picture_of_the_pipeline_has_every_task() -> None:
    picture = read("docs/pictures/pipeline.svg")
    assert {task for task in tasks_of("model_release") if f">{task}</text>" not in picture} == set()


def test_pictures_are_those_that_the_script_draws(tmp_path: Path) -> None:
    script = tmp_path / "draw.py"
    script.write_text(read("docs/pictures/draw.py"), encoding="utf-8")
    subprocess.run([sys.executable, str(script)], check=True)
    drawn = sorted(tmp_path.glob("*.svg"))
    assert drawn
    for picture in drawn:
        assert picture.read_text() == read(f"docs/pictures/{picture.name}"), (
            "run python docs/pictures/draw.py"
        )
