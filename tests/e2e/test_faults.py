"""What goes wrong on the way ends in a typed error with the last words, the lease is free, nothing is left
behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.asked import KNOBS
from tests.e2e.yard import Yard
from trainyard.release import Release
from trainyard_cli import demo

pytestmark = pytest.mark.e2e


@pytest.fixture
def runs(started: dict[str, str]) -> dict[str, str]:
    return started


def failed(yard: Yard, runs: dict[str, str], model: str) -> Release:
    release = yard.follow(runs[model])
    assert release.failure is not None, release.stages
    assert yard.is_free(model)
    # Told to go before the record was closed; going takes its time.
    labels = f"trainyard.dev/model={model}"
    yard.wait_for("the end of its pods", lambda: not yard.cluster.list("Pod", labels=labels))
    assert yard.cluster.find("Deployment", release.id, "trainyard-serving") is None
    # It holds the lease's token, and no gateway has it.
    assert yard.cluster.get("HTTPRoute", model, "trainyard-serving")["spec"]["parentRefs"] == []
    return release


def test_a_compiler_that_fails_is_told_with_its_last_log_lines(yard: Yard, runs: dict[str, str]) -> None:
    release = failed(yard, runs, "bad-compiler")
    assert release.failure is not None
    assert (release.state, release.failure.stage, release.failure.error) == (
        "failed",
        "compile",
        "CompilerFailed",
    )
    assert "  | " in release.failure.message


def test_an_image_that_does_not_exist_is_named(yard: Yard, runs: dict[str, str]) -> None:
    release = failed(yard, runs, "bad-image")
    assert release.failure is not None
    assert release.failure.error == "ImageUnavailable"
    assert "registry.example.com/no/such-image:1" in release.failure.message


def test_a_pod_that_outgrows_its_memory_is_told_to_get_more(yard: Yard, runs: dict[str, str]) -> None:
    release = failed(yard, runs, "bad-memory")
    assert release.failure is not None
    assert release.failure.error == "OutOfMemory"
    assert "256Mi" in release.failure.message
    assert "compile.memory" in release.failure.message


def test_a_pod_that_no_node_can_take_is_not_waited_for(yard: Yard, runs: dict[str, str]) -> None:
    release = failed(yard, runs, "bad-place")
    assert release.failure is not None
    assert release.failure.error == "Unschedulable"
    assert "neuron-trn2" in release.failure.message


def test_a_canary_that_keeps_dying_is_rolled_back_with_its_words_and_logs(
    yard: Yard, runs: dict[str, str]
) -> None:
    release = failed(yard, runs, "bad-server")
    assert release.failure is not None
    assert (release.state, release.failure.error) == ("rolled_back", "CanaryNotReady")
    assert "the devices are gone" in release.failure.message


def test_a_compile_survives_the_death_of_scheduler_triggerer_and_task(yard: Yard, tmp_path: Path) -> None:
    """The pod that was begun is the pod that ends, whatever of Airflow dies meanwhile."""
    may_end = tmp_path / "may-end"
    knob = {KNOBS: json.dumps({"compile_until": str(may_end), "compile_exit": 70})}
    long = {"sequence_length": 896, "deadline_minutes": 60}
    run_id = yard.ask("survivor", compile={**long, "annotations": knob})
    pod = yard.wait_for("the compile pod", lambda: yard.pods("survivor", "compile"))[0]["metadata"]
    yard.wait_for("the deferral", lambda: yard.task(run_id, "compile")["state"] == "deferred")

    killed = {name: yard.pid(name) for name in ("airflow-triggerer", "airflow-scheduler")}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    yard.wait_for("both", lambda: all(yard.is_back(name, pid) for name, pid in killed.items()))
    assert [item["metadata"]["uid"] for item in yard.pods("survivor", "compile")] == [pod["uid"]]
    may_end.touch()

    # And a process of the task itself, which resumes to see how its pod ended.
    def kill_task() -> bool:
        task = yard.task(run_id, "compile")
        if task["state"] != "running" or not task.get("pid"):
            return False
        try:
            os.kill(int(task["pid"]), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    yard.wait_for("a process of the task", kill_task)
    release = yard.follow(run_id)
    assert release.failure is not None
    # The one pod ran to its own end: the compiler's failure is what the run ended with.
    assert (release.failure.stage, release.failure.error) == ("compile", "CompilerFailed")
    started = yard.cluster.list("Event", pod["namespace"], fields="reason=Scheduled")
    names = {event["involvedObject"]["name"] for event in started}
    assert {name for name in names if name.startswith(f"compile-{release.id}")} == {pod["name"]}
    assert yard.is_free("survivor")


def test_a_release_that_a_person_stops_gives_everything_back(yard: Yard) -> None:
    before = demo.weights(demo.MODEL)
    knob = {KNOBS: json.dumps({"compile_until": "/there/is/no/such/file"})}
    long = {"sequence_length": 864, "deadline_minutes": 60}
    run_id = yard.ask("bad-compiler", compile={**long, "annotations": knob})
    yard.wait_for("the compile pod", lambda: yard.pods("bad-compiler", "compile"))
    yard.wait_for("the deferral", lambda: yard.task(run_id, "compile")["state"] == "deferred")
    yard.airflow.stop("model_release", run_id)
    yard.wait_for("the teardown", lambda: yard.task(run_id, "record")["state"] == "success")
    assert yard.is_free("bad-compiler")
    yard.wait_for("the pod's end", lambda: not yard.pods("bad-compiler", "compile"))
    assert demo.weights(demo.MODEL) == before
