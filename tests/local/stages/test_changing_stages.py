"""Stages that change what lives: run twice they change nothing, and without the lease nothing either."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.world import World
from trainyard.errors import (
    CanaryNotReady,
    ClusterUnavailable,
    Conflict,
    CorruptArtifact,
    LeaseLost,
    NotFound,
    PermanentError,
    StoreUnavailable,
)
from trainyard.kube import watchers
from trainyard.release import Release
from trainyard.stages import (
    canary,
    compile_node,
    drain,
    fetch,
    promote,
    publish,
    ready,
    record,
    rollback,
    step,
)
from trainyard.stages import compile as compile_stage
from trainyard.stages.context import Done, Skip, Watch
from trainyard.store.bundles import read_bundle

# -- publish


def test_what_was_staged_becomes_a_bundle_once(world: World) -> None:
    release = world.planned()
    world.stage_compiled(release)
    assert isinstance(publish.run(world.again(), release), Done)
    before = world.seen()
    assert isinstance(publish.run(world.again(), release), Skip)
    assert world.seen() == before
    bundle = read_bundle(world.ctx.objects, release.plan.fingerprint)
    assert bundle.inputs == release.plan.fingerprint_inputs
    assert bundle.has_weights


def test_a_published_bundle_saves_the_compile_and_its_node(world: World) -> None:
    release = world.planned()
    assert isinstance(compile_stage.pod(world.ctx, release), dict)
    assert isinstance(compile_node.watch(world.ctx, release), Watch)
    world.publish(release)
    assert isinstance(compile_stage.pod(world.ctx, release), Skip)
    assert isinstance(compile_node.watch(world.ctx, release), Skip)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"neuron_config_json": b"{}"}, "tp_degree"),
        ({"neuron_config_json": b"[]"}, "no object"),
        ({"neuron_config_json": b"{"}, "no JSON"),
        ({"model_pt": b""}, "model.pt is missing"),
        ({"checkpoint_weights_tp3_sharded_checkpoint_safetensors": b""}, "3 of 4"),
    ],
)
def test_a_set_that_could_not_be_served_is_never_published(
    world: World, changes: dict[str, bytes], word: str
) -> None:
    release = world.planned()
    world.stage_compiled(release, **changes)
    with pytest.raises(PermanentError, match=word):
        publish.run(world.again(), release)
    assert world.ctx.objects.head_or_none(release.plan.bundle_manifest) is None


def test_staged_bytes_that_differ_from_their_digest_are_never_published(world: World) -> None:
    release = world.planned()
    world.stage_compiled(release)
    world.ctx.objects.put(f"staging/{release.plan.fingerprint}/{release.id}/files/model.pt", b"neft" * 99)
    with pytest.raises(CorruptArtifact):
        publish.run(world.again(), release)
    assert world.ctx.objects.head_or_none(release.plan.bundle_manifest) is None


def test_without_a_result_there_is_nothing_to_publish(world: World) -> None:
    release = world.planned()
    with pytest.raises(NotFound):
        publish.run(world.again(), release)
    with pytest.raises(NotFound):
        compile_stage.finish(world.again(), release)
    with pytest.raises(NotFound):
        fetch.finish(world.again(), release)


# -- twice is once


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


def test_the_first_release_rolled_back_leaves_no_route(world: World) -> None:
    release = world.deployed(world.planned())
    promote.shift(world.again(), release, {release.id: 100})
    rollback.run(world.again(), world.load(release))
    assert world.ctx.cluster.find("HTTPRoute", "tiny", world.namespace) is None


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


# -- a lost lease

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


# -- record


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


# -- steps and readiness


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
    with pytest.raises(CanaryNotReady, match="although bundle"):
        ready.finish(ctx, release, "1 of 1 ready", {})
    ctx.cluster = replace_log(world, "INFO Loading the model\n")
    assert "nothing was compiled again" in ready.finish(ctx, release, "1 of 1 ready", {}).note


def replace_log(world: World, text: str) -> Any:
    """The cluster, with a server's log in the place of a kubelet that is not there."""

    class Logged(type(world.ctx.cluster)):  # type: ignore[misc]
        def log(self, *_: Any, **__: Any) -> str:
            return text

    return Logged(world.ctx.cluster.api_client)
