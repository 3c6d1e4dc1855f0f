"""The refresh asks for a release under the run id of its content, or says why not; and whether an entry is in
step with Bedrock."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DagRunTriggerException

from trainyard.asking import Ask
from trainyard.bedrock_policy import Finding, Step
from trainyard.errors import BedrockUnavailable, NotFound, Refused
from trainyard.stages import bedrock, refresh
from trainyard.stages.context import Skip
from trainyard_airflow import seams
from trainyard_airflow.operators import refresh as operators
from trainyard_airflow.operators.refresh import bedrock_step, release_if_new

REPOSITORY = Path(__file__).parents[3]
FINDING = Finding("bedrock.version", "v1:0", "Bedrock has v2:0 too", "Try it.")


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


# -- bedrock_step


class TaskInstance:
    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {"ti": TaskInstance()}
    monkeypatch.setattr(operators, "get_current_context", lambda: found)
    monkeypatch.setattr(seams, "context", lambda: None)
    return found


def seen(monkeypatch: pytest.MonkeyPatch, what: Step | Exception) -> None:
    def run(ctx: Any, name: str, make: Any) -> Step:
        if isinstance(what, Exception):
            raise what
        return what

    monkeypatch.setattr(bedrock, "run", run)


def test_in_step_is_a_success_with_a_note(context: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, Step("meta.llama", "v1:0", "us-east-2"))
    bedrock_step("llama")
    assert context["ti"].pushed == {"note": "In step with meta.llama-v1:0 of Bedrock in us-east-2."}
    assert context["bedrock_state"] == "in step"


def test_a_notice_is_a_success_with_a_warning(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen(monkeypatch, Step("meta.llama", "v1:0", "us-east-2", notices=(FINDING,)))
    with caplog.at_level(logging.INFO, "airflow.task"):
        bedrock_step("llama")
    assert [(record.levelname, "v2:0 too" in record.message) for record in caplog.records] == [
        ("WARNING", True)
    ]
    assert (context["bedrock_state"], "v2:0 too" in context["ti"].pushed["note"]) == ("notice", True)


def test_out_of_step_fails_at_once_and_says_all_in_one_line(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, Step("meta.llama", "v1:0", "us-east-2", mismatches=(FINDING,)))
    with pytest.raises(AirflowFailException, match=r"^llama: Out of step .* Try it\.$") as caught:
        bedrock_step("llama")
    assert "\n" not in str(caught.value)
    assert context["bedrock_state"] == "out of step"
    assert context["ti"].pushed["note"].startswith("Out of step")


def test_silence_of_bedrock_is_tried_again_and_never_in_step(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, BedrockUnavailable("403 AccessDenied"))
    with pytest.raises(BedrockUnavailable):
        bedrock_step("llama")
    assert context["bedrock_state"] == "unknown"
    assert context["ti"].pushed == {"note": "Unknown: 403 AccessDenied"}


def test_an_entry_that_is_refused_fails_at_once(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, Refused([]))
    with pytest.raises(AirflowFailException, match="Refused"):
        bedrock_step("llama")


def test_bedrock_is_asked_by_the_connection_and_its_own_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {
        "region_name": "us-east-1",
        "service_config": {
            "s3": {"endpoint_url": "http://127.0.0.1:1"},
            "bedrock": {"endpoint_url": "http://127.0.0.1:2"},
        },
    }
    connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    client = seams.bedrock("eu-west-1")._make_client()
    assert (client.meta.region_name, client.meta.endpoint_url) == ("eu-west-1", "http://127.0.0.1:2")
    assert client.meta.service_model.service_name == "bedrock"
    assert client.meta.config.retries["total_max_attempts"] == 4


# -- the DAG


@pytest.fixture(scope="module")
def dag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(REPOSITORY / "dags" / "model_refresh.py"))
    assert bag.import_errors == {}
    return bag.dags["model_refresh"]


def test_nothing_depends_on_the_look_at_bedrock_and_it_depends_on_no_release(dag: Any) -> None:
    assert dag.get_task("bedrock_step").downstream_task_ids == set()
    assert dag.get_task("bedrock_step").upstream_task_ids == {"list_hybrids"}
    assert dag.get_task("list_hybrids").upstream_task_ids == set()
    assert dag.get_task("release_if_new").upstream_task_ids == {"list_models"}


def test_each_entry_has_a_task_of_its_own_named_after_it(dag: Any) -> None:
    for name in ("release_if_new", "bedrock_step"):
        task = dag.get_task(name)
        assert task.is_mapped
        assert task.retries == 2
        template = dag.get_template_env().from_string(task.map_index_template)
        assert template.render({"name": "llama"}) == "llama"
    told = template.render({"name": "llama", "bedrock_state": "out of step"})
    assert told == "llama: out of step"
