"""The refresh asks for a release under the run id of its content, or says why not."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DagRunTriggerException

from trainyard.asking import Ask
from trainyard.errors import NotFound
from trainyard.stages import refresh
from trainyard.stages.context import Skip
from trainyard_airflow import seams
from trainyard_airflow.operators.refresh import release_if_new


def answer(monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    def run(ctx: Any, name: str) -> Any:
        if isinstance(what, Exception):
            raise what
        return what

    monkeypatch.setattr(seams, "context", lambda: None)
    monkeypatch.setattr(refresh, "run", run)


def test_what_is_new_is_triggered_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, Ask("tiny__abc__1", {"release": "tiny", "revision": "abc"}))
    with pytest.raises(DagRunTriggerException) as raised:
        release_if_new("tiny")
    wanted = raised.value
    assert (wanted.trigger_dag_id, wanted.dag_run_id) == ("model_release", "tiny__abc__1")
    assert wanted.conf == {"release": "tiny", "revision": "abc"}
    assert wanted.skip_when_already_exists
    assert not wanted.reset_dag_run


def test_nothing_new_is_a_skip_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, Skip("main is abc still"))
    with pytest.raises(AirflowSkipException, match="main is abc still"):
        release_if_new("tiny")


def test_an_entry_that_cannot_be_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, NotFound("no such repository"))
    with pytest.raises(AirflowFailException, match="NotFound: no such repository"):
        release_if_new("tiny")
