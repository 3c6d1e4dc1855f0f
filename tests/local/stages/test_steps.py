"""Steps and readiness: weights, the gateway's word, and both arms measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.scraped import pack_rows
from tests.support.world import World
from tests.unit.rollout.test_live import traffic
from trainyard.errors import (
    CanaryNotReady,
    ClusterUnavailable,
    Conflict,
    Inconclusive,
    Undecided,
    VerdictFailed,
)
from trainyard.release import Release
from trainyard.rollout.verdict import COMPARED
from trainyard.stages import (
    health,
    measure,
    promote,
    ready,
    step,
)
from trainyard.stages.context import Skip
from trainyard.stages.measure import objectives_of
from trainyard.stages.measured import prefix
from trainyard.stages.replay import Margins, replay
from trainyard.stages.reporting import make_report


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
    # Its metrics are asked of each server, and it knows by what it would be judged.
    assert job["servers"] == job["arms"]
    assert job["watch"]["objectives"] == objectives_of(second).to_dict()
    assert job["watch"]["earlier"] == []
    assert "observe_seconds" not in job
    assert world.load(second).weights[-1].percent == {first.id: 90, second.id: 10}


def observed(world: World, release: Release, part: int, **traffic_of: Any) -> None:
    """What a pod leaves that made no load: scrapes of so many spans, and the split that it saw."""
    start = f"{prefix(release, 'step-1')}{part}/"
    summary = {
        "synthetic": False,
        "arms": {},
        "generator": {"valid": True, "reasons": []},
        "live": {"servers": 2, "moments": 9, "failures": 0},
        "split": {"probes": 200, "answered": 200, "canary": 20, "share": 0.1},
    }
    world.ctx.objects.put(f"{start}metrics.ndjson.gz", pack_rows(traffic(**traffic_of)))
    world.ctx.objects.put(f"{start}summary.json", json.dumps(summary).encode())


def test_a_step_may_be_judged_by_real_traffic_alone_and_measures_on_while_there_is_too_little(
    world: World,
) -> None:
    world.catalogue(
        rollout={
            "steps": [{"weight": 10, "observe_seconds": 120, "synthetic": False}],
            "extensions": 1,
            "objectives": {"ttft_p95_seconds": 0.5, "itl_p95_seconds": 0.1},
        }
    )
    first = world.promoted(0, "run-1")
    second = world.deployed(world.planned(1, "run-2"))
    world.endpoints(first, "127.64.0.1")
    world.endpoints(second, "127.64.0.2")
    promote.shift(world.again(), second, {first.id: 90, second.id: 10})
    accept(world)

    def asked() -> dict[str, Any] | None:
        pod = step.pod(world.again(), world.load(second), 1)
        if pod is None:
            return None
        assert isinstance(pod, dict)
        variables = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
        found: dict[str, Any] = json.loads(variables["TRAINYARD_JOB"])
        return found

    job = asked()
    assert job is not None
    assert job["observe_seconds"] == 120
    assert job["servers"]["canary"] == ["http://127.64.0.2:8000"]

    def judged() -> str:
        return step.finish(world.again(), world.load(second), 1).note

    observed(world, second, 0, seed=1, spans=6, share=0.1)
    assert asked() is None  # a try that was lost before the verdict: its part is judged, not measured again
    with pytest.raises(Inconclusive, match="Measuring on"):
        judged()
    extended = asked()
    assert extended is not None
    assert extended["output"].endswith("/step-1/1/")
    observed(world, second, 1, seed=2, spans=2, share=0.1)
    with pytest.raises(Undecided, match="Nothing was decided"):
        judged()
    observed(world, second, 1, seed=2, spans=60, share=0.1)
    assert "servers: ttft p95" in judged()
    assert asked() is None  # and so is one that was lost after it
    verdict = world.load(second).verdicts["step-1"]
    assert (verdict["outcome"], verdict["parts"], verdict["summary"]["synthetic"]) == ("pass", 2, False)
    assert world.load(second).weights[-1].observed == {second.id: 0.1}
    observed(world, second, 1, seed=2, spans=60, share=0.1, slow=2.0)
    with pytest.raises(VerdictFailed, match="mean"):
        judged()
    (again,) = replay(world.ctx.objects, world.load(second), Margins())
    assert (again.phase, again.recorded, again.verdict.outcome) == ("step-1", "fail", "fail")
    (loose,) = replay(world.ctx.objects, world.load(second), Margins(max_ratio=dict.fromkeys(COMPARED, 3.0)))
    assert loose.verdict.outcome == "pass"
    # Whoever writes the report has no samples of it.
    assert make_report(world.again(), world.load(second)).phases


def test_a_condemned_node_is_to_blame_before_the_model(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    second = world.deployed(world.planned(1, "run-2")).model_copy(update={"previous": "tiny-r0"})
    pod = world.pod(second)
    monkeypatch.setattr(health, "server_pods", lambda *_: [pod])
    condition = {"type": "NeuronHealth", "status": "True", "reason": "NeuronHasError_DMA_ERROR"}
    observed(world, second, 0, seed=1, spans=60, share=0.1)
    assert measure.judged(world.again(), second, "step-1", 10)[0].outcome == "pass"
    monkeypatch.setattr(health, "conditions_at", lambda *_: [condition])
    verdict, _ = measure.judged(world.again(), world.load(second), "step-1", 10)
    assert verdict.outcome == "infrastructure_fault"
    recorded = world.load(second)
    assert recorded.verdicts["step-1"]["device"]["state"] == "sick"
    (again,) = replay(world.ctx.objects, recorded, Margins())
    assert again.verdict.outcome == "infrastructure_fault"

    def gone(*_: object) -> list[str]:
        raise ClusterUnavailable("the API server does not answer")

    monkeypatch.setattr(health, "server_pods", gone)
    assert measure.judged(world.again(), world.load(second), "step-1", 10)[0].outcome == "pass"


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
