"""S3 outlives a cluster: what the channel names and the cluster lost is brought back, not believed."""

from __future__ import annotations

from tests.support.world import World
from trainyard.kube.traffic import set_weights
from trainyard.release import Release
from trainyard.stages import promote, rollback


def lose(world: World, release: Release) -> None:
    for kind in ("Deployment", "Service"):
        world.ctx.cluster.delete(kind, release.id, world.namespace)
    world.ctx.cluster.delete("HTTPRoute", release.model, world.namespace)


def test_a_stable_release_that_the_cluster_lost_is_released_again(world: World) -> None:
    stable = world.promoted(0, "run-1")
    lose(world, stable)
    found = world.plan(0, run="run-2")
    assert found.release is not None
    assert found.release.id == stable.id
    assert found.release.previous is None
    assert f"{stable.id}, which the channel names, is not in this cluster" in found.note


def test_a_lost_stable_release_is_no_baseline_and_does_not_keep_the_next_from_promotion(world: World) -> None:
    stable = world.promoted(0, "run-1")
    lose(world, stable)
    release = world.planned(1, run="run-2")
    assert (release.previous, release.channel) == (None, stable.id)
    world.publish(release)
    release = world.deployed(release)
    promote.run(world.again(), release)
    assert world.ctx.channels.read(release.model).stable == release.id
    assert world.weights() == {release.id: 100}


def test_a_rollback_sends_no_traffic_to_a_release_that_is_not_there(world: World) -> None:
    stable = world.promoted(0, "run-1")
    lose(world, stable)
    release = world.planned(1, run="run-2")
    world.publish(release)
    release = world.deployed(release)
    set_weights(
        world.ctx.cluster,
        model=release.model,
        namespace=world.namespace,
        gateway="g",
        gateway_namespace=world.namespace,
        weights={release.id: 100},
        token=release.lease_token,
    )
    rollback.run(world.again(), release)
    assert world.weights() == {}
