"""`trainyard plan` against a Hub: facts of the commit that a spec follows, and what the Hub says no to."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from local.checkpoints.checkpoint import write_checkpoint
from local.checkpoints.shape import Shape
from tests.support.hub import LocalHub
from trainyard_cli.plan_question import Options
from trainyard_cli.planning import run


@pytest.fixture(autouse=True)
def local_hub(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_HUB_ENDPOINT", hub.endpoint)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def checkpoint(folder: Path, **config: Any) -> Path:
    write_checkpoint(folder / "checkpoint", seed=3, shape=Shape())
    path = folder / "checkpoint" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder / "checkpoint"


def asked(folder: Path, repo: str) -> tuple[int, dict[str, Any]]:
    spec = folder / "tiny.yaml"
    spec.write_text(
        yaml.safe_dump({"name": "tiny", "model": {"repo": repo}, "hardware": {"tensor_parallel": 2}})
    )
    console = Console(file=io.StringIO())
    code = run(str(spec), Options(), console, as_json=True)
    assert isinstance(console.file, io.StringIO)
    found: dict[str, Any] = json.loads(console.file.getvalue())
    return code, found


def test_facts_come_from_the_commit_that_the_branch_means(hub: LocalHub, tmp_path: Path) -> None:
    sha = hub.publish("plan/tiny", checkpoint(tmp_path))
    code, found = asked(tmp_path, "plan/tiny")
    assert (code, found["revision"], found["model"]["weights_from"]) == (0, sha, "headers")
    shards = sum(path.stat().st_size for path in (tmp_path / "checkpoint").glob("*.safetensors"))
    assert 0 < found["model"]["weight_bytes"] <= shards
    assert found["model"]["gated"] is False


def test_no_weights_are_downloaded_for_a_plan(hub: LocalHub, tmp_path: Path) -> None:
    hub.publish("plan/light", checkpoint(tmp_path))
    before = len(hub.requests())
    assert asked(tmp_path, "plan/light")[0] == 0
    sent = sum(request["sent"] for request in hub.requests()[before:])
    shards = sum(path.stat().st_size for path in (tmp_path / "checkpoint").glob("*.safetensors"))
    assert 0 < sent < shards / 4


def test_a_repository_with_code_of_its_own_is_refused(hub: LocalHub, tmp_path: Path) -> None:
    hub.publish("plan/code", checkpoint(tmp_path, auto_map={"AutoModel": "modeling.Model"}))
    code, found = asked(tmp_path, "plan/code")
    assert (code, found["can_run"]) == (1, False)
    assert "auto_map" in found["problems"][0]["field"]


def test_a_repository_that_is_not_there_is_a_bad_question(tmp_path: Path) -> None:
    code, found = asked(tmp_path, "plan/nothing")
    assert (code, found["can_run"]) == (2, None)
    assert "plan/nothing" in found["error"]


def test_a_gated_repository_without_a_token_is_a_bad_question_that_names_the_token(
    hub: LocalHub, tmp_path: Path
) -> None:
    hub.publish("plan/gated", checkpoint(tmp_path), gated=True)
    code, found = asked(tmp_path, "plan/gated")
    assert (code, found["can_run"]) == (2, None)
    assert "token" in found["error"].lower()


def test_a_hub_that_nobody_answers_for_is_a_bad_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainyard import hub as hub_module

    monkeypatch.setenv("TRAINYARD_HUB_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub_module, "TRIES", 1)
    code, found = asked(tmp_path, "plan/tiny")
    assert (code, found["can_run"]) == (2, None)
    assert "does not answer" in found["error"]
