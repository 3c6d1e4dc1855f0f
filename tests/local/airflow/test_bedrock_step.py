"""The task that looks at Bedrock, from Airflow's connection to the document in S3."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.bedrock import LLAMA, LocalBedrock, bedrock, bedrock_process
from tests.support.world import World
from trainyard.errors import BedrockUnavailable

__all__ = ["bedrock", "bedrock_process"]
NAMED = f"{LLAMA}-v1:0"


class TaskInstance:
    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture(scope="module", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        import trainyard_airflow.operators.refresh  # noqa: F401  the first import decides where Airflow lives


@pytest.fixture
def context(world: World, bedrock: LocalBedrock, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An entry of which Bedrock has the version, and the connection to ask it by."""
    from trainyard_airflow import seams
    from trainyard_airflow.operators import refresh

    extra = {"region_name": "us-east-1", "service_config": {"bedrock": {"endpoint_url": bedrock.endpoint}}}
    connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    found: dict[str, Any] = {"ti": TaskInstance()}
    monkeypatch.setattr(refresh, "get_current_context", lambda: found)
    monkeypatch.setattr(seams, "context", world.again)
    world.catalogue(bedrock={"model_id": LLAMA, "version": "v1:0", "revision": world.revisions[2]})
    return found


def document(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.ctx.objects.get("bedrock/tiny.json").body)
    return found


def test_the_task_says_what_bedrock_says(
    world: World, bedrock: LocalBedrock, context: dict[str, Any]
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from trainyard_airflow.operators.refresh import bedrock_step

    bedrock_step("tiny")
    assert context["bedrock_state"] == "in step"
    assert document(world)["words"] == context["ti"].pushed["note"]
    bedrock.offers(f"{LLAMA}-v2:0")
    with pytest.raises(AirflowFailException, match=r"tiny: Out of step .* it has v2:0\."):
        bedrock_step("tiny")
    assert document(world)["state"] == "out_of_step"
    assert list(world.ctx.objects.list("releases/")) == []


def test_a_role_without_the_right_is_not_in_step_and_is_told_which_right(
    world: World, bedrock: LocalBedrock, context: dict[str, Any]
) -> None:
    from trainyard_airflow.operators.refresh import bedrock_step

    bedrock.offers(NAMED, rules=({"operation": "GetFoundationModel", "error": "AccessDeniedException"},))
    with pytest.raises(BedrockUnavailable, match="allow its role bedrock:GetFoundationModel"):
        bedrock_step("tiny")
    assert (document(world)["state"], context["bedrock_state"]) == ("unknown", "unknown")
