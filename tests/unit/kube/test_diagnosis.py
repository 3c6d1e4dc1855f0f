"""Each way in which a pod goes wrong has its own error, with the way out in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard import errors
from trainyard.errors import PermanentError, PodFailed, TrainyardError, TransientError
from trainyard.kube import diagnosis

Obj = dict[str, Any]


def pod(state: Obj | None = None, *, init: bool = False, **changes: Any) -> Obj:
    """A pod whose one container is in `state`; changes go into its status."""
    item = {"name": "base", "image": "repo/image:1", "state": state or {}}
    key = "initContainerStatuses" if init else "containerStatuses"
    container = {"name": "base", "resources": {"limits": {"memory": "64Gi"}}}
    return {
        "metadata": {"name": "compile-x", "namespace": "jobs"},
        "spec": {"containers": [container]},
        "status": {"phase": "Pending", key: [item], **changes},
    }


def waiting(reason: str, message: str = "") -> Obj:
    return {"waiting": {"reason": reason, "message": message}}


def dead(code: int, reason: str = "Error", message: str = "") -> Obj:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"]
)
@pytest.mark.parametrize("init", [True, False])
def test_an_image_that_does_not_exist_is_told_with_its_name(reason: str, init: bool) -> None:
    error = diagnosis.stuck(pod(waiting(reason, "repo/image:1: not found"), init=init))
    assert isinstance(error, errors.ImageUnavailable)
    assert "repo/image:1" in str(error)
    assert "Check its name, tag and region" in str(error)


@pytest.mark.parametrize(
    "message", ["429 Too Many Requests", "toomanyrequests: slow", "503", "dial tcp: i/o timeout"]
)
def test_a_registry_that_is_busy_is_waited_for(message: str) -> None:
    assert diagnosis.stuck(pod(waiting("ErrImagePull", message))) is None


@pytest.mark.parametrize(
    "reason", ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"]
)
def test_a_container_that_cannot_start_is_told_with_the_reason(reason: str) -> None:
    error = diagnosis.stuck(pod(waiting(reason, 'secret "hub" not found')))
    assert isinstance(error, PodFailed)
    assert 'secret "hub" not found' in str(error)
    assert error.reason == reason


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", ""])
def test_a_pod_on_its_way_is_not_stuck(reason: str) -> None:
    assert diagnosis.stuck(pod(waiting(reason))) is None


def test_an_oom_kill_says_the_limit_and_that_trying_again_cannot_help() -> None:
    error = diagnosis.ended(pod(dead(137, "OOMKilled"), phase="Failed"), "one\ntwo")
    assert isinstance(error, errors.OutOfMemory)
    assert "64Gi" in str(error)
    assert "raise `compile.memory`" in str(error)
    assert (error.exit_code, error.log) == (137, ("one", "two"))


def test_an_exit_code_comes_with_the_last_log_lines() -> None:
    error = diagnosis.ended(pod(dead(70), phase="Failed"), "\n".join(map(str, range(100))))
    assert isinstance(error, PodFailed)
    assert error.exit_code == 70
    assert error.log == tuple(str(number) for number in range(85, 100))
    assert str(error).endswith("| 99")


def test_without_a_log_the_termination_message_speaks() -> None:
    error = diagnosis.ended(pod(dead(1, message="line one\nline two"), phase="Failed"))
    assert isinstance(error, PodFailed)
    assert error.log == ("line one", "line two")


@pytest.mark.parametrize("name", [name for name, kind in vars(errors).items() if isinstance(kind, type)])
def test_a_job_that_names_its_error_decides_its_type(name: str) -> None:
    told = json.dumps({"error": name, "message": "what and why", "exit_code": 70})
    error = diagnosis.ended(pod(dead(1, message=told), phase="Failed"), "log")
    assert isinstance(error, TrainyardError)
    assert "what and why" in str(error)
    kind = getattr(errors, name)
    if issubclass(kind, TrainyardError) and kind is not errors.Refused:
        assert type(error) is kind
    else:
        assert type(error) is PermanentError


def test_a_deadline_is_told_as_such_though_the_container_was_killed() -> None:
    error = diagnosis.ended(pod(dead(137), phase="Failed", reason="DeadlineExceeded"))
    assert isinstance(error, PodFailed)
    assert error.reason == "DeadlineExceeded"
    assert "raise the deadline" in str(error)


@pytest.mark.parametrize(
    "status",
    [
        {"reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."},
        {"reason": "NodeLost"},
        {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]},
        {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
    ],
)
@pytest.mark.parametrize("state", [{}, dead(143)])
def test_a_pod_that_its_node_gave_up_is_worth_another_try(status: Obj, state: Obj) -> None:
    error = diagnosis.ended(pod(state, phase="Failed", **status))
    assert isinstance(error, TransientError)
    assert "taken off its node" in str(error)


def test_a_pod_that_ended_well_or_still_runs_died_of_nothing() -> None:
    assert diagnosis.ended(pod(dead(0, "Completed"), phase="Succeeded")) is None
    assert diagnosis.ended(pod({"running": {}}, phase="Running")) is None
    assert diagnosis.ended({"metadata": {"name": "x"}}) is None


def test_an_init_container_that_failed_is_the_one_that_is_named() -> None:
    found = pod(dead(3), init=True, phase="Failed")
    found["status"]["initContainerStatuses"][0]["name"] = "tools"
    assert "container tools ended with exit code 3" in str(diagnosis.ended(found))


def test_the_schedulers_and_karpenters_own_words_are_told() -> None:
    unbound = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    events = [
        {"reason": "FailedScheduling", "message": "0/3 nodes are available"},
        {"reason": "Pulled", "message": "unrelated"},
        {"reason": "FailedScheduling", "message": "Karpenter says no"},
    ]
    words = diagnosis.unschedulable(pod(conditions=[unbound]), events)
    assert words == "0/3 nodes are available | Karpenter says no | 0/3 nodes"
    assert diagnosis.unschedulable(pod(conditions=[{**unbound, "status": "True"}]), events) is None
    assert isinstance(diagnosis.not_scheduled(pod(), words), errors.Unschedulable)


def test_what_no_nodepool_can_ever_serve_is_told_at_once() -> None:
    never = {"reason": "FailedScheduling", "message": 'incompatible with nodepool "neuron", no instance type'}
    error = diagnosis.never_schedulable(pod(), [never])
    assert isinstance(error, errors.Unschedulable)
    assert "requirements and taints" in str(error)
    passing = {"reason": "FailedScheduling", "message": "0/1 nodes are available: insufficient neuron"}
    assert diagnosis.never_schedulable(pod(), [passing]) is None


def test_a_container_that_keeps_dying_is_found() -> None:
    looping = pod(waiting("CrashLoopBackOff"))
    assert diagnosis.crash_looping(looping) is not None
    again = pod({"running": {}})
    again["status"]["containerStatuses"][0]["restartCount"] = 2
    assert diagnosis.crash_looping(again) is not None
    assert diagnosis.crash_looping(pod({"running": {}})) is None


@given(st.text(max_size=100))
def test_no_termination_message_raises(message: str) -> None:
    assert diagnosis.job_error(message) is None or message.strip().startswith("{")


@pytest.mark.parametrize(
    "message", ["[" * 4096, '{"error":' * 500, '{"error": "Problem"}', '{"error": ["x"]}', "null"]
)
def test_a_strange_termination_message_is_no_crash(message: str) -> None:
    diagnosis.job_error(message)
