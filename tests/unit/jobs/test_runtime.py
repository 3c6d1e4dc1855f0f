from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainyard.errors import (
    CompilerFailed,
    HubUnavailable,
    LeaseHeld,
    NotFound,
    PermanentError,
    Problem,
    Refused,
    TrainyardError,
)
from trainyard.jobs import runtime


@pytest.fixture(autouse=True)
def keep_logging() -> Any:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination"
    monkeypatch.setenv("TRAINYARD_TERMINATION_LOG", str(path))
    monkeypatch.setenv("TRAINYARD_JOB", json.dumps({"n": 1}))
    return path


def job(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    monkeypatch.setitem(sys.modules, "trainyard.jobs.fetch", SimpleNamespace(run=run))  # type: ignore[arg-type]


def raising(error: Exception) -> Any:
    def run(_: dict[str, Any]) -> dict[str, Any]:
        raise error

    return run


def test_a_result_is_the_last_line(
    told: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job(monkeypatch, lambda given: {"got": given["n"]})
    assert runtime.main("fetch", []) == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'trainyard-result: {"got": 1}'
    assert not told.exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermanentError("x"), 65),
        (NotFound("x"), 65),
        (Refused(Problem("f", 1, "rule", "remedy")), 65),
        (CompilerFailed("x", exit_code=70, log=("last",)), 65),
        (HubUnavailable("x", retry_after=9), 75),
        (LeaseHeld("x"), 75),
        (ValueError("a defect"), 1),
    ],
)
def test_the_exit_code_says_whether_trying_again_can_help(
    told: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    job(monkeypatch, raising(error))
    assert runtime.main("fetch", []) == code
    document = json.loads(told.read_text())
    assert document["error"] == type(error).__name__
    if isinstance(error, TrainyardError):
        assert document["message"] == str(error)
    assert document.get("retry_after") == getattr(error, "retry_after", None)
    assert document.get("exit_code") == getattr(error, "exit_code", None)


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    text = runtime.termination(PermanentError(""), "begin " + "ü" * 5000 + " end")
    message = json.loads(text)["message"]
    assert message.startswith("begin")
    assert message.endswith("end")
    assert len(text.encode()) <= 4096


@pytest.mark.parametrize("given", ["", "{", "[]", "7"])
def test_input_that_is_no_object_is_refused(told: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("TRAINYARD_JOB", given)
    assert runtime.main("fetch", []) == 65
    assert "JSON" in json.loads(told.read_text())["message"]


def test_an_unknown_job_is_refused_with_the_known_ones(told: Path) -> None:
    assert runtime.main("../x", []) == 65
    assert "materialise" in json.loads(told.read_text())["message"]


def test_secrets_of_the_environment_never_leave(
    told: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary_abc")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws_canary_def")

    def run(_: dict[str, Any]) -> dict[str, Any]:
        logging.getLogger("x").info("using %s", "hf_canary_abc")
        raise PermanentError("refused aws_canary_def")

    job(monkeypatch, run)
    runtime.main("fetch", [])
    job(monkeypatch, raising(ValueError("hf_canary_abc")))
    runtime.main("fetch", [])
    job(monkeypatch, lambda _: {"token": "hf_canary_abc"})
    runtime.main("fetch", [])
    everything = capsys.readouterr().out + told.read_text()
    assert "canary" not in everything
    assert "***" in everything


@pytest.mark.parametrize(("value", "kind"), [(True, int), ("1", int), (1, str), (None, str), ([], dict)])
def test_a_field_of_the_wrong_type_is_refused_by_name(value: object, kind: type) -> None:
    with pytest.raises(PermanentError, match="'n'"):
        runtime.field({"n": value}, "n", kind)
