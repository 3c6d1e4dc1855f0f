"""Operators over real stages: what an error means to Airflow, and what it leaves in the record."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.world import World
from trainyard.errors import LeaseLost, NotFound, PermanentError, StoreUnavailable
from trainyard.release import Release
from trainyard.stages import load, publish, record
from trainyard.stages.context import Done
from trainyard.store import keys
from trainyard.store.bundles import bundle_usable, read_bundle


@pytest.fixture(scope="module", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("airflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(folder))
        import trainyard_airflow.operators.record  # noqa: F401  the first import decides where Airflow lives
    return folder


@dataclass
class TaskInstance:
    """The part of Airflow's task instance that operators use."""

    where: dict[str, str]
    try_number: int = 1
    max_tries: int = 3
    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_pull(self, task_ids: str) -> dict[str, str]:
        return self.where

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def run(
    world: World, release: Release, monkeypatch: pytest.MonkeyPatch, name: str, stage: str, **ti: Any
) -> Any:
    from trainyard_airflow import seams
    from trainyard_airflow.operators import stage as operators

    monkeypatch.setattr(seams, "context", lambda ti=None: world.again())
    instance = TaskInstance({"model": release.model, "release": release.id}, **ti)
    operator = getattr(operators, name)(task_id=stage, stage=stage)
    context: Any = {"ti": instance}
    operator.execute(context)
    return instance


def test_a_stage_leaves_its_note_in_the_record_and_for_airflow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = world.planned()
    world.stage_compiled(release)
    instance = run(world, release, monkeypatch, "StageOperator", "publish")
    stage = world.load(release).stages["publish"]
    assert stage.state == "done"
    assert instance.pushed["note"] == stage.note
    assert stage.note.startswith("bundle ")


def test_a_stage_with_nothing_to_do_is_skipped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    release = world.planned()
    world.publish(release)
    with pytest.raises(AirflowSkipException, match="published already"):
        run(world, release, monkeypatch, "StageOperator", "publish")
    assert world.load(release).stages["publish"].state == "skipped"


def test_a_stage_whose_pod_has_done_its_work_already_makes_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainyard_airflow import seams
    from trainyard_airflow.operators.pod import JobPodOperator

    release = world.planned()
    monkeypatch.setattr(seams, "context", lambda ti=None: world.again())
    monkeypatch.setattr(load, "pod", lambda ctx, release: None)
    monkeypatch.setattr(load, "finish", lambda ctx, release: Done("judged at last"))
    context: Any = {"ti": TaskInstance({"model": release.model, "release": release.id})}
    JobPodOperator(task_id="load_test", stage="load").execute(context)
    assert world.load(release).stages["load_test"].note == "judged at last"
    assert not world.ctx.cluster.list("Pod", world.ctx.settings.jobs_namespace)


def test_a_permanent_error_fails_at_once_and_is_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    release = world.planned()
    with pytest.raises(AirflowFailException, match="NotFound"):
        run(world, release, monkeypatch, "StageOperator", "canary")
    failure = world.load(release).failure
    assert failure is not None
    assert (failure.stage, failure.error) == ("canary", NotFound.__name__)


@pytest.mark.parametrize(("attempt", "recorded"), [(1, False), (4, True)])
def test_a_transient_error_is_tried_again_and_recorded_when_no_try_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch, attempt: int, recorded: bool
) -> None:
    release = world.planned()

    def fails(*_: Any) -> None:
        raise StoreUnavailable("S3 is away")

    monkeypatch.setattr(publish, "run", fails)
    with pytest.raises(StoreUnavailable):
        run(world, release, monkeypatch, "StageOperator", "publish", try_number=attempt)
    assert (world.load(release).failure is not None) is recorded


def test_a_release_that_ended_meanwhile_goes_no_further(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    release = world.planned()
    world.again().fail(release, "compile", PermanentError("exit code 70"))
    world.publish(release)
    with pytest.raises(AirflowFailException, match="failed in compile already"):
        run(world, release, monkeypatch, "StageOperator", "canary")
    assert world.live("Deployment", release) is None


def test_a_release_that_lost_its_lease_is_still_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = world.planned(1, "run-2")
    lease = world.ctx.leases.current("tiny")
    assert lease is not None
    world.ctx.leases.renew(lease, -1.0)
    world.planned(2, "run-3")
    run(world, late, monkeypatch, "SettleOperator", "record")
    assert world.ctx.objects.head_or_none(f"reports/tiny/{late.id}.html") is not None


def test_a_roll_back_without_the_lease_fails_and_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    late = world.planned(1, "run-2")
    lease = world.ctx.leases.current("tiny")
    assert lease is not None
    world.ctx.leases.renew(lease, -1.0)
    world.planned(2, "run-3")
    before = world.seen()
    with pytest.raises(AirflowFailException, match=LeaseLost.__name__):
        run(world, late, monkeypatch, "SettleOperator", "rollback")
    assert world.seen() == before


def test_a_release_that_waits_may_take_over_before_the_record_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = world.planned(1, "run-2")
    really = record.run

    def overtaken(*arguments: Any) -> Any:
        done = really(*arguments)
        world.planned(2, "run-3")
        return done

    monkeypatch.setattr(record, "run", overtaken)
    run(world, release, monkeypatch, "SettleOperator", "record")
    assert world.load(release).state == "failed"


def test_what_a_pod_found_damaged_is_condemned_by_the_task_that_waited_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from trainyard_airflow import seams
    from trainyard_airflow.operators.watch import WatchOperator

    release = world.deployed(world.planned())
    manifest = read_bundle(world.ctx.objects, release.plan.fingerprint)
    blob = next(entry.blob for entry in manifest.files if entry.path == "model.pt")
    world.ctx.objects.put(keys.blob(blob), b"damaged")
    monkeypatch.setattr(seams, "context", lambda ti=None: world.again())
    operator = WatchOperator(task_id="canary_ready", stage="ready")
    context: Any = {"ti": TaskInstance({"model": release.model, "release": release.id})}
    told = "model.pt is damaged in S3: its digest is another."
    with pytest.raises(AirflowFailException, match="The bundle is marked"):
        operator.resume(context, {"status": "failed", "error": "CorruptArtifact", "message": told})
    assert not bundle_usable(world.ctx.objects, release.plan.fingerprint)
    failure = world.load(release).failure
    assert failure is not None
    assert failure.message.startswith("model.pt is damaged")
