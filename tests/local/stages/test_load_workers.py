"""The pods of a shared load test: made once, gone when it is over, whatever happens in between."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.world import World
from trainyard.kube.cluster import Object
from trainyard.release import Release
from trainyard.stages import load, rollback
from trainyard.stages.workers import ATTEMPT, WORKER, dismiss


@pytest.fixture
def release(world: World) -> Release:
    world.catalogue(rollout={"load": {"workers": 3, "processes": 2, "concurrency": 12}})
    return deployed(world)


def deployed(world: World) -> Release:
    release = world.deployed(world.planned())
    world.endpoints(release, "127.64.0.1")
    return release


def members(world: World) -> dict[str, Object]:
    """Pods of the jobs' namespace by worker; the one that the operator would make is not among them."""
    pods = world.ctx.cluster.list("Pod", world.ctx.settings.jobs_namespace)
    found = {pod["metadata"]["labels"][WORKER]: pod for pod in pods}
    assert len(found) == len(pods)
    return found


def job(pod: Object) -> dict[str, Any]:
    variables = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
    found: dict[str, Any] = json.loads(variables["TRAINYARD_JOB"])
    return found


def attempt(pod: Object) -> str:
    return str(pod["metadata"]["labels"][ATTEMPT])


def leading(world: World, release: Release) -> Object:
    pod = load.pod(world.again(), world.load(release))
    assert isinstance(pod, dict)
    return pod


def follow(world: World, leader: Object, phase: str = "Running") -> str:
    """What the operator does with the pod that it is given."""
    made = world.ctx.cluster.create(
        {**leader, "metadata": {**leader["metadata"], "name": f"{leader['metadata']['name']}-x"}}
    )
    name = str(made["metadata"]["name"])
    path = f"/api/v1/namespaces/{world.ctx.settings.jobs_namespace}/pods/{name}/status"
    world.server.request("PATCH", path, {"status": {"phase": phase}}, media="application/merge-patch+json")
    return name


def test_the_stage_makes_the_other_pods_and_tells_each_its_place(world: World, release: Release) -> None:
    leader = leading(world, release)
    others = members(world)
    assert sorted(others) == ["1", "2"]
    told = {worker: job(pod)["crew"] for worker, pod in {**others, "0": leader}.items()}
    assert {worker: crew["index"] for worker, crew in told.items()} == {"0": 0, "1": 1, "2": 2}
    assert {crew["of"] for crew in told.values()} == {3}
    assert {crew["attempt"] for crew in told.values()} == {attempt(leader)}
    for pod in (*others.values(), leader):
        assert job(pod)["workload"]["processes"] == 2
        assert pod["metadata"]["labels"]["trainyard.dev/release"] == release.id
        assert pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "3"
    # One pod looks at the servers' metrics for all.
    assert "servers" in job(leader)
    assert not {"servers", "watch", "split"} & set(job(others["1"]))


def test_a_leader_that_still_works_keeps_its_pods(world: World, release: Release) -> None:
    leader = leading(world, release)
    follow(world, leader)
    before = {worker: pod["metadata"]["uid"] for worker, pod in members(world).items()}
    again = leading(world, release)
    assert attempt(again) == attempt(leader)
    assert {worker: pod["metadata"]["uid"] for worker, pod in members(world).items()} == before


def test_a_try_without_its_leader_begins_anew_and_leaves_no_second_set(
    world: World, release: Release
) -> None:
    leader = leading(world, release)
    world.ctx.cluster.delete("Pod", follow(world, leader, "Failed"), world.ctx.settings.jobs_namespace)
    again = leading(world, release)
    assert attempt(again) != attempt(leader)
    others = members(world)
    assert sorted(others) == ["1", "2"]
    assert {attempt(pod) for pod in others.values()} == {attempt(again)}


def test_a_measured_phase_and_a_release_that_is_rolled_back_leave_no_pods(
    world: World, release: Release
) -> None:
    follow(world, leading(world, release))
    dismiss(world.again(), release, load.PHASE)
    assert sorted(members(world)) == ["0"]  # whoever follows it takes it away
    leading(world, release)
    rollback.run(world.again(), world.load(release))
    assert not members(world)


def test_no_more_pods_than_users_and_none_where_one_is_wanted(world: World) -> None:
    world.catalogue(rollout={"load": {"workers": 16, "concurrency": 2}})
    release = deployed(world)
    assert job(leading(world, release))["crew"]["of"] == 2
    assert sorted(members(world)) == ["1"]
