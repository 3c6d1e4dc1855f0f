"""Stages that change what lives: run twice they change nothing the second time."""

from __future__ import annotations

import pytest

from tests.support.world import World
from trainyard.errors import (
    Conflict,
    NotFound,
)
from trainyard.kube import watchers
from trainyard.stages import (
    canary,
    drain,
    promote,
    rollback,
)
from trainyard.stages import compile as compile_stage
from trainyard.stages.context import Skip, Watch


def test_a_canary_is_deployed_once_and_takes_no_traffic(world: World) -> None:
    release = world.planned()
    world.publish(release)
    canary.run(world.again(), release)
    before = world.seen()
    canary.run(world.again(), release)
    assert world.seen() == before
    assert world.weights() == {}
    assert {"Deployment", "Service"} <= {name.partition("/")[0] for name in before}


def test_a_canary_beside_a_stable_release_leaves_it_all_the_traffic(world: World) -> None:
    first = world.promoted(0, "run-1")
    second = world.deployed(world.planned(1, "run-2"))
    assert second.previous == first.id
    assert world.weights() == {first.id: 100}
    before = world.seen()
    canary.run(world.again(), second)
    assert world.seen() == before


def test_without_a_bundle_no_canary_is_deployed(world: World) -> None:
    release = world.planned()
    with pytest.raises(NotFound, match="run the compile again"):
        canary.run(world.again(), release)
    assert world.live("Deployment", release) is None


def test_a_promotion_is_made_once(world: World) -> None:
    release = world.deployed(world.planned())
    promote.run(world.again(), release)
    before = world.seen()
    promote.run(world.again(), world.load(release))
    assert world.seen() == before
    assert world.weights() == {release.id: 100}
    assert world.ctx.channels.read("tiny").stable == release.id
    assert world.load(release).state == "promoted"


def test_a_promotion_never_touches_the_pods_that_were_measured(world: World) -> None:
    first = world.promoted(0, "run-1")
    second = world.deployed(world.planned(1, "run-2"))
    deployed = world.live("Deployment", second)
    old = world.live("Deployment", first)
    promote.run(world.again(), second)
    after, previous = world.live("Deployment", second), world.live("Deployment", first)
    assert deployed
    assert after
    assert old
    assert previous
    for was, now, role in ((deployed, after, "stable"), (old, previous, "previous")):
        assert now["spec"] == was["spec"]
        assert now["metadata"]["generation"] == was["metadata"]["generation"]
        assert now["metadata"]["labels"]["trainyard.dev/role"] == role


def test_a_roll_back_is_made_once(world: World) -> None:
    first = world.promoted(0, "run-1")
    second = world.deployed(world.planned(1, "run-2"))
    promote.shift(world.again(), second, {first.id: 75, second.id: 25})
    stable = world.live("Deployment", first)
    rollback.run(world.again(), world.load(second))
    before = world.seen()
    assert world.weights() == {first.id: 100}
    assert world.live("Deployment", second) is None
    assert world.live("Service", second) is None
    assert world.live("Deployment", first) == stable
    assert world.load(second).state == "rolled_back"
    rollback.run(world.again(), world.load(second))
    assert world.seen() == before


def test_a_roll_back_before_anything_was_deployed_says_so(world: World) -> None:
    release = world.planned()
    done = rollback.run(world.again(), release)
    assert done.note == "nothing had been deployed"
    assert world.load(release).state == "failed"


def test_the_first_release_rolled_back_leaves_a_route_that_no_gateway_has(world: World) -> None:
    release = world.deployed(world.planned())
    promote.shift(world.again(), release, {release.id: 100})
    rollback.run(world.again(), world.load(release))
    assert world.weights() == {}
    route = world.ctx.cluster.get("HTTPRoute", "tiny", world.namespace)
    assert route["spec"]["parentRefs"] == []


def test_a_promoted_release_is_not_rolled_back(world: World) -> None:
    release = world.promoted(0, "run-1")
    before = world.seen()
    assert isinstance(rollback.run(world.again(), release), Skip)
    assert world.seen() == before


def test_a_roll_back_after_the_channel_moved_finishes_the_promotion(world: World) -> None:
    release = world.deployed(world.planned())
    world.ctx.channels.move("tiny", release.id, release.lease_token)
    rollback.run(world.again(), release)
    assert world.load(release).state == "promoted"
    assert world.weights() == {release.id: 100}
    assert world.live("Deployment", release) is not None


def test_the_job_pods_of_a_release_go_with_it(world: World) -> None:
    release = world.planned()
    manifest = compile_stage.pod(world.ctx, release)
    assert isinstance(manifest, dict)
    jobs = world.ctx.settings.jobs_namespace
    world.server.request("POST", f"/api/v1/namespaces/{jobs}/pods", manifest)
    rollback.run(world.again(), release)
    assert world.ctx.cluster.list("Pod", jobs) == []


def test_the_previous_release_is_drained_once(world: World) -> None:
    first = world.promoted(0, "run-1")
    second = world.deployed(world.planned(1, "run-2"))
    promote.run(world.again(), second)
    second = world.load(second)
    watch = drain.watch(world.again(), second)
    assert isinstance(watch, Watch)
    look = watchers.WATCHERS[watch.watcher](world.ctx.cluster, **watch.arguments)
    assert not look.done
    drain.finish(world.again(), second, "", {})
    assert world.live("Deployment", first) is None
    assert world.live("Service", first) is None
    before = world.seen()
    assert isinstance(drain.watch(world.again(), second), Skip)
    drain.finish(world.again(), second, "", {})
    assert world.seen() == before


def test_a_previous_release_that_has_traffic_again_is_not_drained(world: World) -> None:
    first = world.promoted(0, "run-1")
    second = world.deployed(world.planned(1, "run-2"))
    promote.run(world.again(), second)
    second = world.load(second)
    promote.shift(world.again(), second, {first.id: 50, second.id: 50})
    assert "stays" in drain.finish(world.again(), second, "", {}).note
    assert world.live("Deployment", first) is not None


def test_the_drain_lasts_as_long_as_the_longest_streams_that_were_measured(world: World) -> None:
    release = world.planned()
    arms = {"canary": {"e2e": {"p99": 90.0}}, "baseline": {"e2e": {"p99": None}}}
    measured = release.model_copy(update={"verdicts": {"load": {"summary": {"arms": arms}}}})
    assert drain.budget(release, 30.0) == 30.0
    assert drain.budget(measured, 30.0) == 90.0
    arms["canary"]["e2e"]["p99"] = float("inf")
    assert drain.budget(measured, 30.0) == 30.0


def test_a_promotion_over_another_stable_than_was_measured_is_refused(world: World) -> None:
    release = world.deployed(world.planned(0))
    world.ctx.channels.move("tiny", "somebody-else", release.lease_token)
    before = world.seen()
    with pytest.raises(Conflict, match="release again"):
        promote.run(world.again(), release)
    assert world.seen() == before
    assert world.weights() == {}
