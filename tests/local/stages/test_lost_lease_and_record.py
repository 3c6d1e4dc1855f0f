"""Without the lease nothing changes; whatever happened is recorded, and the lease is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.world import World
from trainyard.errors import (
    LeaseLost,
    PermanentError,
    StoreUnavailable,
)
from trainyard.release import Release
from trainyard.stages import (
    canary,
    drain,
    promote,
    record,
    rollback,
    step,
)
from trainyard.stages.context import Done

Change = Callable[[World, Release], Any]
CHANGES: dict[str, Change] = {
    "canary": lambda world, release: canary.run(world.again(), release),
    "promote": lambda world, release: promote.run(world.again(), release),
    "roll_back": lambda world, release: rollback.run(world.again(), release),
    "drain": lambda world, release: drain.finish(world.again(), release, "", {}),
    "step": lambda world, release: step.pod(world.again(), release, 1),
    "begin": lambda world, release: world.again().begin(release, "judge"),
    "end": lambda world, release: world.again().end(release, "judge", Done("fine")),
    "shift": lambda world, release: promote.shift(world.again(), release, {release.id: 100}),
}


def test_a_holder_that_lost_its_lease_changes_nothing_in_any_stage(world: World) -> None:
    first = world.promoted(0, "run-1")
    late = world.deployed(world.planned(1, "run-2"))
    lease = world.ctx.leases.current("tiny")
    assert lease is not None
    world.ctx.leases.renew(lease, -1.0)
    newer = world.deployed(world.planned(2, "run-3"))
    assert newer.lease_token == late.lease_token + 1
    before = world.seen()
    for change in CHANGES.values():
        with pytest.raises(LeaseLost):
            change(world, late)
    assert world.seen() == before
    assert world.weights() == {first.id: 100}


def test_a_holder_that_was_paused_after_its_check_cannot_move_the_weights(world: World) -> None:
    """The lease was its own when it looked; the route itself refuses the older token."""
    first = world.promoted(0, "run-1")
    late = world.deployed(world.planned(1, "run-2"))
    lease = world.ctx.leases.current("tiny")
    assert lease is not None
    world.ctx.leases.renew(lease, -1.0)
    world.deployed(world.planned(2, "run-3"))
    before = world.weights()
    from trainyard.kube.traffic import set_weights

    settings = world.ctx.settings
    with pytest.raises(LeaseLost):
        set_weights(
            world.ctx.cluster,
            model="tiny",
            namespace=settings.serving_namespace,
            gateway=settings.gateway_name,
            gateway_namespace=settings.gateway_namespace,
            weights={late.id: 100},
            token=late.lease_token,
        )
    assert world.weights() == before == {first.id: 100}


def test_a_failure_of_a_holder_that_lost_its_lease_is_dropped(world: World) -> None:
    late = world.planned(1, "run-2")
    lease = world.ctx.leases.current("tiny")
    assert lease is not None
    world.ctx.leases.renew(lease, -1.0)
    world.planned(2, "run-3")
    world.again().fail(late, "compile", PermanentError("too late"))
    assert world.load(late).failure is None


def test_a_record_closes_the_release_writes_a_report_and_frees_the_lease(world: World) -> None:
    release = world.planned()
    world.again().begin(release, "compile")
    world.again().fail(release, "compile", PermanentError("exit code 70\nsecond line"))
    done = record.run(world.again(), world.load(release))
    found = world.load(release)
    assert (found.state, done.data["state"]) == ("failed", "failed")
    assert found.failure is not None
    assert found.failure.error == "PermanentError"
    assert "second line" in found.failure.message
    assert found.stages["compile"].note == "PermanentError: exit code 70"
    page = world.ctx.objects.get(str(done.data["report"])).body.decode()
    assert release.id in page
    assert "exit code 70" in page
    assert world.ctx.leases.current("tiny") is None
    record.run(world.again(), found)


def test_an_error_without_words_is_recorded_too(world: World) -> None:
    release = world.planned()
    world.again().fail(release, "judge", AssertionError())
    failure = world.load(release).failure
    assert failure is not None
    assert failure.error == "AssertionError"


def test_the_first_failure_stands(world: World) -> None:
    release = world.planned()
    world.again().fail(release, "compile", PermanentError("the cause"))
    world.again().fail(release, "publish", PermanentError("its echo"))
    failure = world.load(release).failure
    assert failure is not None
    assert failure.message == "the cause"


def test_a_task_that_was_killed_is_closed_by_the_record(world: World) -> None:
    release = world.planned()
    world.again().begin(release, "load_test")
    record.run(world.again(), release)
    stage = world.load(release).stages["load_test"]
    assert stage.state == "failed"
    assert "without a word" in stage.note


def test_a_report_that_cannot_be_written_keeps_nobody_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = world.planned()

    def fails(*_: object) -> None:
        raise StoreUnavailable("no room")

    monkeypatch.setattr(record, "write_report", fails)
    with pytest.raises(StoreUnavailable):
        record.run(world.again(), release)
    assert world.ctx.leases.current("tiny") is None
    assert world.load(release).state == "failed"


def test_a_release_that_lost_its_lease_still_gets_its_report(world: World) -> None:
    late = world.planned(1, "run-2")
    lease = world.ctx.leases.current("tiny")
    assert lease is not None
    world.ctx.leases.renew(lease, -1.0)
    newer = world.planned(2, "run-3")
    done = record.run(world.again(), late)
    assert world.ctx.objects.head_or_none(str(done.data["report"])) is not None
    held = world.ctx.leases.current("tiny")
    assert held is not None
    assert held.holder == newer.id
