"""The way back from the command line, and what must never be written down."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from tests.support.seaweed import S3Server
from tests.support.world import World
from trainyard.errors import NotFound, PermanentError
from trainyard.params import params_schema
from trainyard.spec import Request
from trainyard.stages import compile as compile_stage
from trainyard.stages import fetch, plan, promote, record, rollback
from trainyard_cli import records
from trainyard_cli.rolling_back import stop_running, way_back

TOKEN, KEY = "hf_canarytoken000111222333", "CANARY/aws+secret=key"


@pytest.fixture
def command_line(world: World, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The environment of `trainyard`, as the stack's stack.env gives it."""
    settings = world.ctx.settings
    for name, value in {
        **s3_server.environment,
        "TRAINYARD_BUCKET": settings.bucket,
        "TRAINYARD_RELEASES_DIR": str(settings.releases_dir),
    }.items():
        monkeypatch.setenv(name, value)
    records.objects.cache_clear()
    yield world
    records.objects.cache_clear()


def test_the_way_back_asks_for_the_release_before_with_its_own_spec(command_line: World) -> None:
    world = command_line
    first = world.promoted(0, "run-1")
    second = world.promoted(1, "run-2")
    world.catalogue(serving={"replicas": 3})
    asked = way_back("tiny", None)
    assert asked == way_back("tiny", first.id)
    assert asked.conf["revision"] == first.plan.revision
    schema = params_schema(world.ctx.settings.releases_dir)
    for name, value in asked.conf.items():
        assert Draft202012Validator(schema[name]).is_valid(value), name
    back = plan.run(world.again(), Request(**asked.conf), asked.run_id).release
    assert back is not None
    assert back.spec.serving.replicas == first.spec.serving.replicas
    assert back.plan.fingerprint == first.plan.fingerprint
    assert back.previous == second.id
    assert back.id != first.id


def test_without_an_earlier_release_there_is_no_way_back(command_line: World) -> None:
    with pytest.raises(NotFound, match="no earlier release"):
        way_back("tiny", None)
    command_line.promoted(0, "run-1")
    with pytest.raises(NotFound, match="no earlier release"):
        way_back("tiny", None)
    with pytest.raises(NotFound):
        way_back("tiny", "tiny-0000000-000000")


def test_the_release_that_runs_is_stopped_by_its_run(command_line: World) -> None:
    class Stopped:
        runs: list[str] = []

        def stop(self, dag_id: str, run_id: str) -> None:
            self.runs.append(run_id)

    airflow: Any = Stopped()
    console = Console(file=io.StringIO())
    assert stop_running(airflow, "tiny", console) is False
    command_line.planned(0, run="run-7")
    assert stop_running(airflow, "tiny", console) is True
    assert airflow.runs == ["run-7"]


def test_no_secret_of_the_environment_is_written_anywhere(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"):
        monkeypatch.setenv(name, TOKEN)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AIRFLOW_PASSWORD"):
        monkeypatch.setenv(name, KEY)
    first = world.promoted(0, "run-1")
    release = world.planned(1, run="run-2")
    jobs = [fetch.pod(world.again(), release), compile_stage.pod(world.again(), release)]
    world.deployed(release)
    promote.shift(world.again(), release, {first.id: 90, release.id: 10})
    world.again().fail(release, "judge", PermanentError("worse"))
    rollback.run(world.again(), world.load(release))
    record.run(world.again(), world.load(release))
    written = json.dumps(jobs) + caplog.text + "".join(capfd.readouterr())
    for kind in ("Deployment", "Service", "HTTPRoute", "Pod"):
        written += json.dumps(world.ctx.cluster.list(kind, world.namespace))
    for info in world.ctx.objects.list(""):
        written += world.ctx.objects.get(info.key).body.decode(errors="replace")
    assert first.id in written
    for secret in (TOKEN, KEY):
        assert secret not in written
