"""plan against a real store, cluster and Hub: the record, the lease, and what is nothing to do."""

from __future__ import annotations

import json

import pytest

from tests.support.world import REPO, World
from trainyard.errors import LeaseHeld, NotFound, Refused, StoreUnavailable
from trainyard.spec import Request
from trainyard.stages import plan, record, refresh, rollback
from trainyard.stages.context import Skip, ensure_running


def test_a_plan_is_written_to_the_ledger_under_a_lease_with_a_token(world: World) -> None:
    release = world.planned(run="run-1")
    assert (release.state, release.lease_token, release.run) == ("running", 1, "run-1")
    assert release.plan.revision == world.revisions[2]
    assert release.previous is None
    assert "There is no stable release" in release.plan.abort_plan
    assert release.stages["plan"].state == "done"
    lease = world.ctx.leases.current("tiny")
    assert lease is not None
    assert (lease.holder, lease.token, lease.run) == (release.id, 1, "run-1")
    assert world.load(release) == release
    assert json.loads(world.ctx.objects.get(plan.run_key("run-1")).body) == {
        "model": "tiny",
        "release": release.id,
    }


def test_the_tracked_branch_is_pinned_to_its_commit(world: World) -> None:
    found = plan.run(world.ctx, Request(release="tiny"), "run-1")
    assert found.release is not None
    assert found.release.plan.revision == world.revisions[2]


def test_a_revision_that_the_hub_does_not_have_is_not_found_and_leaves_nothing(world: World) -> None:
    with pytest.raises(NotFound, match="revision"):
        plan.run(world.ctx, Request(release="tiny", revision="nothere"), "run-1")
    assert world.seen() == {}


def test_a_refused_plan_leaves_nothing_behind(world: World) -> None:
    with pytest.raises(Refused, match=r"hardware\.tensor_parallel"):
        world.plan(overrides={"hardware": {"tensor_parallel": 3}})
    assert world.seen() == {}
    assert world.ctx.leases.current("tiny") is None


def test_the_same_run_again_begins_anew_under_its_lease(world: World) -> None:
    first = world.planned(run="run-1")
    world.again().fail(first, "compile", ValueError())
    again = world.planned(run="run-1")
    assert (again.id, again.lease_token, again.created_at) == (first.id, first.lease_token, first.created_at)
    assert again.failure is None
    ensure_running(again)


def test_another_release_of_the_model_waits_for_the_one_that_runs(world: World) -> None:
    world.planned(0, run="run-1")
    with pytest.raises(LeaseHeld, match="run-1") as caught:
        world.plan(1, run="run-2")
    assert caught.value.retry_after is not None


def test_the_same_release_in_another_run_waits_for_the_first(world: World) -> None:
    world.planned(0, run="run-1")
    with pytest.raises(LeaseHeld, match="by DAG run run-1"):
        world.plan(0, run="run-2")


def test_a_release_that_is_stable_already_is_nothing_to_do(world: World) -> None:
    release = world.promoted(0, "run-1")
    before = world.seen()
    found = world.plan(0, run="run-2")
    assert found.release is None
    assert found.release_id == release.id
    assert "is stable already" in found.note
    assert world.seen() == before
    assert world.ctx.leases.current("tiny") is None


def test_a_release_that_was_overtaken_is_told_how_to_come_back(world: World) -> None:
    world.promoted(0, "run-1")
    second = world.promoted(1, "run-2")
    found = world.plan(0, run="run-3")
    assert found.release is None
    assert second.id in found.note
    assert "another `request`" in found.note
    assert world.planned(0, run="run-4", request="back").previous == second.id


def test_a_release_that_failed_is_not_tried_again_without_being_asked(world: World) -> None:
    release = world.deployed(world.planned(0, run="run-1"))
    rollback.run(world.again(), release)
    record.run(world.again(), world.load(release))
    found = world.plan(0, run="run-2")
    assert found.release is None
    assert "was tried and" in found.note
    assert world.planned(0, run="run-3", request="again").id != release.id


def test_a_plan_that_cannot_be_written_gives_its_lease_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = world.again()

    def fails(*_: object) -> None:
        raise StoreUnavailable("S3 is away")

    monkeypatch.setattr(ctx.ledger, "create", fails)
    with pytest.raises(StoreUnavailable):
        plan.run(ctx, Request(release="tiny"), "run-1")
    assert ctx.leases.current("tiny") is None


def test_a_release_whose_lease_ran_out_is_superseded_and_can_write_no_more(world: World) -> None:
    first = world.planned(0, run="run-1")
    lease = world.ctx.leases.current("tiny")
    assert lease is not None
    world.ctx.leases.renew(lease, -1.0)
    second = world.planned(1, run="run-2")
    assert second.lease_token == first.lease_token + 1
    lost = world.load(first)
    assert lost.state == "failed"
    assert second.id in lost.outcome


# -- refresh


def test_a_new_revision_is_asked_for_and_the_same_one_twice_is_not(world: World) -> None:
    found = refresh.run(world.again(), "tiny")
    assert not isinstance(found, Skip)
    assert found.conf == {"release": "tiny", "revision": world.revisions[2]}
    assert refresh.run(world.again(), "tiny") == found
    planned = plan.run(world.again(), Request(**found.conf), found.run_id).release
    assert planned is not None
    again = refresh.run(world.again(), "tiny")
    assert isinstance(again, Skip)
    assert planned.id in again.note


def test_a_revision_that_was_rolled_back_is_left_to_people(world: World) -> None:
    release = world.deployed(world.planned(2, run="run-1"))
    rollback.run(world.again(), release)
    skipped = refresh.run(world.again(), "tiny")
    assert isinstance(skipped, Skip)
    assert "rolled_back" in skipped.note


def test_a_changed_entry_is_a_reason_to_ask_but_new_objectives_are_not(world: World) -> None:
    world.planned(2)
    world.catalogue(rollout={"steps": []})
    assert isinstance(refresh.run(world.again(), "tiny"), Skip)
    world.catalogue(serving={"replicas": 2})
    assert not isinstance(refresh.run(world.again(), "tiny"), Skip)


def test_a_release_that_a_person_asked_for_by_id_does_not_count_for_the_clock(world: World) -> None:
    world.planned(2, request="mine")
    assert not isinstance(refresh.run(world.again(), "tiny"), Skip)


def test_an_entry_of_an_unknown_repository_is_said_so(world: World) -> None:
    world.catalogue()
    world.document["model"]["repo"] = f"{REPO}-nothere"
    (world.folder / "tiny.yaml").write_text(json.dumps(world.document))
    with pytest.raises(NotFound, match="does not exist"):
        refresh.run(world.again(), "tiny")
