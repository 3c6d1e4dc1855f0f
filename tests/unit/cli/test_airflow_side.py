"""The command line against an Airflow that answers as it is told, bad moments included."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from tests.support.moody import Answer, Moody, moody
from trainyard.asking import Ask
from trainyard_cli import releasing
from trainyard_cli.airflow_api import Airflow, ApiError, connect
from trainyard_cli.progress import follow, render
from trainyard_cli.stack import Stack
from trainyard_cli.streaming import Streamer

__all__ = ["moody"]
TOKEN: Answer = (201, {}, {"access_token": "t"})


def run(state: str) -> Answer:
    return 200, {}, {"dag_run_id": "r", "state": state, "start_date": None, "end_date": None}


def tasks(**states: str) -> Answer:
    found = [{"task_id": name, "state": state, "duration": 1.5} for name, state in states.items()]
    return 200, {}, {"task_instances": found}


@pytest.fixture
def airflow(moody: Moody) -> Airflow:
    moody.answers = [TOKEN]
    return Airflow(moody.url, "u", "p")


def test_a_token_is_taken_once_and_renewed_when_it_expired(moody: Moody, airflow: Airflow) -> None:
    moody.answers += [run("queued"), (401, {}, {"detail": "expired"}), TOKEN, run("running")]
    assert airflow.run("d", "r").state == "queued"
    assert airflow.run("d", "r").state == "running"
    assert [line for line in moody.seen if "auth" in line] == ["POST /auth/token"] * 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"detail": "no such run"}, "no such run"),
        ({"detail": {"reason": "Invalid input for param revision"}}, "param revision"),
        ({"detail": [{"msg": "x"}]}, "msg"),
        (["odd"], "odd"),
        (b"<html>", "<html>"),
        ({}, "{}"),
    ],
)
def test_a_refusal_is_told_in_airflows_words(moody: Moody, airflow: Airflow, body: Any, words: str) -> None:
    moody.answers += [(400, {}, body)]
    with pytest.raises(ApiError, match="Airflow answered 400") as caught:
        airflow.trigger("d", "r", {})
    assert words in str(caught.value)


def test_a_wrong_password_is_told(moody: Moody) -> None:
    moody.answers = [(401, {}, {"detail": "Invalid credentials"})]
    with pytest.raises(ApiError, match="Invalid credentials"):
        Airflow(moody.url, "u", "p").runs("d")


def test_an_xcom_that_is_not_there_is_none(moody: Moody, airflow: Airflow) -> None:
    moody.answers += [
        (404, {}, {"detail": "none"}),
        (200, {}, {"value": '{"a": 1}'}),
        (200, {}, {"value": "x"}),
    ]
    assert [airflow.xcom("d", "r", "t", "k") for _ in range(3)] == [None, {"a": 1}, "x"]


def test_the_same_release_asked_for_twice_is_one_run(moody: Moody, airflow: Airflow) -> None:
    console = Console(file=io.StringIO())
    wanted = Ask("run-1", {"release": "llama"})
    moody.answers += [
        (200, {}, {"dag_run_id": "run-1", "state": "queued"}),
        (409, {}, {"detail": "exists"}),
        (400, {}, {"detail": "bad"}),
    ]
    assert releasing.trigger(airflow, wanted, console) == ("run-1", True)
    assert releasing.trigger(airflow, wanted, console) == ("run-1", False)
    with pytest.raises(ApiError):
        releasing.trigger(airflow, wanted, console)


def follows(airflow: Airflow, record: dict[str, Any] | None = None, **options: Any) -> tuple[Any, str]:
    out = io.StringIO()
    console = Console(file=out, width=200)
    ended = follow(airflow, "r", console, read_record=lambda _: record, interval=0.0, **options)
    return ended, out.getvalue()


def test_a_run_is_followed_to_its_end_with_a_line_for_each_stage_that_ended(
    moody: Moody, airflow: Airflow
) -> None:
    moody.answers += [run("running"), tasks(plan="success", compile="running")]
    moody.answers += [run("failed"), tasks(plan="success", compile="failed", publish="upstream_failed")]
    record = {"stages": {"compile": {"note": "CompilerFailed: exit code 70\nmore"}}}
    ended, out = follows(airflow, record)
    assert (ended.state, ended.tasks["compile"]) == ("failed", "failed")
    assert out.count("plan") == 1
    assert "exit code 70" in out
    assert "more" not in out


def test_an_api_server_that_restarts_does_not_end_the_following(moody: Moody, airflow: Airflow) -> None:
    moody.answers += [
        run("running"),
        None,
        (503, {}, b""),
        (500, {}, {}),
        run("success"),
        tasks(plan="success"),
    ]
    assert follows(airflow)[0].state == "success"


def test_a_run_that_does_not_exist_ends_the_following(moody: Moody, airflow: Airflow) -> None:
    moody.then = (404, {}, {"detail": "no such run"})
    with pytest.raises(ApiError, match="no such run"):
        follows(airflow)


def test_a_run_that_never_ends_is_given_up(moody: Moody, airflow: Airflow) -> None:
    moody.answers += [run("running"), tasks()]
    with pytest.raises(TimeoutError, match="has not ended"):
        follows(airflow, timeout=-1.0)
    moody.then = None
    with pytest.raises((httpx.TransportError, TimeoutError)):
        follows(airflow, timeout=-1.0)


def test_the_picture_holds_every_state_and_odd_records() -> None:
    states = ["success", "failed", "running", "deferred", "skipped", "None", "removed", "restarting"]
    names = ["plan", "compile", "publish", "canary", "judge", "step_1", "promote", "record"]
    shown = {name: {"task_id": name, "state": state} for name, state in zip(names, states, strict=True)}
    weights = [{"percent": {"a": 95, "b": 5}}]
    for record in (None, {}, {"id": "b", "weights": weights, "stages": {"plan": {"note": "[bold]x"}}}):
        out = io.StringIO()
        Console(file=out, width=80).print(render("title [x]", "running", shown, record, 3.0))
        assert "title [x]" in out.getvalue()
        assert "compile" in out.getvalue()


def test_credentials_come_from_the_environment_or_the_stacks_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_USERNAME", raising=False)
    monkeypatch.delenv("AIRFLOW_PASSWORD", raising=False)
    with pytest.raises(ApiError, match="make up"):
        connect(tmp_path)
    (tmp_path / "airflow-credentials.json").write_text(json.dumps({"username": "u", "password": "p"}))
    assert connect(tmp_path).url


def test_the_stacks_environment_yields_to_what_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not Stack(tmp_path).adopt()
    assert Stack(tmp_path).state == {}
    (tmp_path / "stack.env").write_text("# a comment\nTRAINYARD_TEST_A=a=b\nTRAINYARD_TEST_B=b\n")
    monkeypatch.setenv("TRAINYARD_TEST_A", "")
    monkeypatch.setenv("TRAINYARD_TEST_B", "mine")
    monkeypatch.delenv("TRAINYARD_TEST_A")
    assert Stack(tmp_path).adopt()
    import os

    assert (os.environ.pop("TRAINYARD_TEST_A"), os.environ["TRAINYARD_TEST_B"]) == ("a=b", "mine")


def sse(*events: Any, done: bool = True) -> Answer:
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events]
    return 200, {"Content-Type": "text/event-stream"}, "".join([*lines, "data: [DONE]\n\n" * done]).encode()


CHUNK = {"choices": [{"delta": {"content": "a"}}]}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (sse(CHUNK, CHUNK), ""),
        (sse(CHUNK, {"choices": []}), ""),
        (sse(CHUNK, done=False), "cut"),
        (sse(), "empty"),
        (sse(CHUNK, {"error": {"message": "engine died"}}), "engine died"),
        (sse(CHUNK, "{torn"), "JSONDecodeError"),
        (sse(CHUNK, [1]), "Error"),
        (sse(CHUNK, 5), "Error"),
        (sse(CHUNK, {"choices": 7}), "Error"),
        ((502, {}, b"bad gateway"), "HTTP 502"),
        (None, "Error"),
    ],
)
def test_every_stream_that_is_not_whole_counts_as_failed(moody: Moody, answer: Answer, problem: str) -> None:
    moody.then = answer
    streamer = Streamer(moody.url, "m")
    with httpx.Client(trust_env=False) as client:
        found, _ = streamer._ask(client)
    assert problem in found
    assert bool(found) == bool(problem)


def test_a_streamer_counts_what_it_saw(moody: Moody) -> None:
    moody.answers = [None, sse(CHUNK, [1])]
    moody.then = sse(CHUNK, CHUNK)
    with Streamer(moody.url, "m", streams=1) as streamer:
        while streamer.tally.complete < 2:
            time.sleep(0.01)
    assert len(streamer.tally.failed) == 2
    assert streamer.tally.total == streamer.tally.complete + 2
    assert streamer.tally.tokens >= 4
