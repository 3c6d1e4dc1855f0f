"""Steps and readiness: weights, the gateway's word, and both arms measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.world import World
from trainyard.errors import (
    CanaryNotReady,
    ClusterUnavailable,
    Conflict,
)
from trainyard.stages import (
    promote,
    ready,
    step,
)
from trainyard.stages.context import Skip


def accept(world: World, status: str = "True", reason: str = "Accepted") -> None:
    """What a gateway writes once it has taken the route over."""
    route = world.ctx.cluster.get("HTTPRoute", "tiny", world.namespace)
    entry = {
        "type": "Accepted",
        "status": status,
        "reason": reason,
        "message": "m",
        "lastTransitionTime": "2030-01-01T00:00:00Z",
        "observedGeneration": route["metadata"]["generation"],
    }
    parent = {
        "parentRef": {"name": "trainyard"},
        "controllerName": "traefik.io/gateway-controller",
        "conditions": [entry],
    }
    world.server.request(
        "PATCH",
        f"/apis/gateway.networking.k8s.io/v1/namespaces/{world.namespace}/httproutes/tiny/status",
        {"status": {"parents": [parent]}},
        media="application/merge-patch+json",
    )


def test_a_step_shifts_the_weight_waits_for_the_gateway_and_measures_both_arms(world: World) -> None:
    first = world.promoted(0, "run-1")
    second = world.deployed(world.planned(1, "run-2"))
    world.endpoints(first, "127.64.0.1")
    world.endpoints(second, "127.64.0.2", "127.64.0.3")
    promote.shift(world.again(), second, {first.id: 90, second.id: 10})
    accept(world)
    pod = step.pod(world.again(), world.load(second), 1)
    assert isinstance(pod, dict)
    assert world.weights() == {first.id: 90, second.id: 10}
    variables = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
    job = json.loads(variables["TRAINYARD_JOB"])
    assert job["arms"] == {
        "canary": ["http://127.64.0.2:8000", "http://127.64.0.3:8000"],
        "baseline": ["http://127.64.0.1:8000"],
    }
    assert job["split"]["canary_name"] == second.id
    assert world.load(second).weights[-1].percent == {first.id: 90, second.id: 10}


def test_a_step_beyond_the_spec_or_without_a_stable_release_is_skipped(world: World) -> None:
    release = world.deployed(world.planned(0))
    assert isinstance(step.pod(world.again(), release, 1), Skip)
    with_stable = release.model_copy(update={"previous": "other"})
    assert isinstance(step.pod(world.again(), with_stable, 3), Skip)


def test_a_step_against_another_stable_than_at_the_start_is_refused(world: World) -> None:
    world.promoted(0, "run-1")
    second = world.deployed(world.planned(1, "run-2"))
    world.ctx.channels.move("tiny", "somebody-else", second.lease_token)
    with pytest.raises(Conflict, match="somebody-else"):
        step.pod(world.again(), second, 1)


def test_a_gateway_that_does_not_take_the_weights_over_is_told_with_its_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promoted(0, "run-1")
    second = world.deployed(world.planned(1, "run-2"))
    monkeypatch.setattr(step, "_ACCEPT_SECONDS", 0.0)
    with pytest.raises(ClusterUnavailable, match="no gateway has taken"):
        step.pod(world.again(), second, 1)


def test_a_server_that_compiled_again_is_not_ready(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    release = world.deployed(world.planned())
    world.pod(release)
    ctx = world.again()
    ctx.cluster = replace_log(world, "INFO Compiling the model\n")
    with pytest.raises(CanaryNotReady, match="is not proven to use bundle"):
        ready.finish(ctx, release, "1 of 1 ready", {})
    ctx.cluster = replace_log(world, "INFO Loading the model\n")
    assert "nothing was compiled again" in ready.finish(ctx, release, "1 of 1 ready", {}).note


def replace_log(world: World, text: str) -> Any:
    """The cluster, with a server's log in the place of a kubelet that is not there."""

    class Logged(type(world.ctx.cluster)):  # type: ignore[misc]
        def log(self, *_: Any, **__: Any) -> str:
            return text

        def execute(self, *_: Any, **__: Any) -> str:
            return json.dumps({"metrics": "", "files": []})

    return Logged(world.ctx.cluster.api_client)
