"""Why a pod does not run: its status and events, turned into one typed error. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from trainyard import errors
from trainyard.errors import (
    ImageUnavailable,
    OutOfMemory,
    PermanentError,
    PodFailed,
    TrainyardError,
    TransientError,
    Unschedulable,
)
from trainyard.kube.cluster import Object

_BAD_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
# A registry that is busy or away will come back; a name that does not exist will not.
_PASSING_PULL = ("429", "toomanyrequests", "503", "502", "500", "timeout", "i/o", "connection")
_DISRUPTIONS = ("Evicted", "NodeLost", "NodeShutdown", "Preempting", "Shutdown", "Terminated")
_STARTED_BADLY = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def statuses(pod: Object) -> list[Object]:
    """Container statuses, init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def where(pod: Object) -> str:
    meta = pod["metadata"]
    return f"pod {meta.get('namespace')}/{meta['name']}"


def stuck(pod: Object) -> TrainyardError | None:
    """What keeps a pod from starting and will not pass by itself; None where waiting is right."""
    for item in statuses(pod):
        waiting = (item.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), str(waiting.get("message") or "")
        if reason in _BAD_IMAGE and not any(word in message.lower() for word in _PASSING_PULL):
            return ImageUnavailable(
                f"{where(pod)}: image {item.get('image')} cannot be pulled ({reason}: {message}). "
                "Check its name, tag and region, and that the nodes may pull from that registry.",
                reason=reason,
            )
        if reason in _STARTED_BADLY:
            return PodFailed(
                f"{where(pod)}: container {item['name']} cannot start ({reason}: {message}). "
                "Check the secrets, volumes and command that it names.",
                reason=reason,
            )
    return None


def unschedulable(pod: Object, events: Iterable[Object]) -> str | None:
    """The scheduler's (and Karpenter's) own words on why a pending pod has no node; None if it has one."""
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = [
                str(event.get("message"))
                for event in events
                if event.get("reason") in ("FailedScheduling", "NoCompatibleInstanceTypes")
            ]
            return " | ".join(dict.fromkeys([*said[-2:], str(condition.get("message") or "")]))
    return None


def never_schedulable(pod: Object, events: Iterable[Object]) -> Unschedulable | None:
    """A pending pod that Karpenter itself says no NodePool can ever serve."""
    for event in events:
        message = str(event.get("message") or "")
        if event.get("reason") == "FailedScheduling" and "incompatible with nodepool" in message:
            return Unschedulable(
                f"{where(pod)} can never be scheduled: {message}. Check the NodePool's requirements and "
                f"taints "
                "against hardware.instance_type and hardware.nodepool of the spec.",
                reason="Unschedulable",
            )
    return None


def ended(pod: Object, log: str = "") -> TrainyardError | None:
    """What a finished pod died of; None if it succeeded or still runs.

    The job's own word (its termination message) decides first: it knows its error's type.
    """
    status = pod.get("status") or {}
    tail = tuple(log.splitlines()[-15:])
    disrupted = _disruption(pod)
    if disrupted:
        return TransientError(f"{where(pod)} was taken off its node: {disrupted} A new pod may end well.")
    for item in statuses(pod):
        dead = (item.get("state") or {}).get("terminated") or {}
        if not dead or dead.get("exitCode") == 0:
            continue
        code, reason = dead.get("exitCode"), dead.get("reason") or "Error"
        if reason == "OOMKilled":
            return OutOfMemory(
                f"{where(pod)}: container {item['name']} was killed for using more memory than its limit "
                f"({_limit(pod, item['name'])}). Trying again cannot help: raise `compile.memory` or "
                "`serving.memory` in the spec.",
                reason=reason,
                exit_code=code,
                log=tail,
            )
        told = job_error(dead.get("message"), tail)
        if told is not None:
            return told
        if status.get("reason") == "DeadlineExceeded":
            break  # the kubelet killed it: its exit code tells nothing
        return PodFailed(
            f"{where(pod)}: container {item['name']} ended with exit code {code} ({reason}).",
            reason=reason,
            exit_code=code,
            log=tail or tuple(str(dead.get("message") or "").splitlines()[-15:]),
        )
    if status.get("phase") == "Failed":
        reason = status.get("reason") or "Failed"
        late = reason == "DeadlineExceeded"
        remedy = (
            "It ran longer than its deadline: raise the deadline in the spec, or see the log." if late else ""
        )
        return PodFailed(
            f"{where(pod)} failed: {reason}: {status.get('message') or ''}. {remedy}".strip(),
            reason=reason,
            log=tail,
        )
    return None


def _disruption(pod: Object) -> str:
    """Why a failed pod is not to blame: the node went, or gave it up; empty where that is not so."""
    status = pod.get("status") or {}
    if status.get("phase") != "Failed":
        return ""
    for condition in status.get("conditions") or []:
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f"{condition.get('reason')}: {condition.get('message') or ''}"
    if status.get("reason") in _DISRUPTIONS:
        return f"{status['reason']}: {status.get('message') or ''}"
    return ""


def crash_looping(pod: Object) -> Object | None:
    """The status of a container that keeps dying, if there is one."""
    for item in statuses(pod):
        waiting = (item.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") == "CrashLoopBackOff" or item.get("restartCount", 0) >= 2:
            return item
    return None


def job_error(message: str | None, log: tuple[str, ...] = ()) -> TrainyardError | None:
    """A job's termination message -> the error that it names; None where it is no such message."""
    try:
        document: Any = json.loads(message or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, Mapping) or "error" not in document:
        return None
    kind = getattr(errors, str(document["error"]), None)
    text = str(document.get("message") or "")
    if isinstance(kind, type) and issubclass(kind, PodFailed):
        return kind(text, exit_code=document.get("exit_code"), log=log)
    if isinstance(kind, type) and issubclass(kind, TrainyardError) and kind is not errors.Refused:
        return kind(text)
    return PermanentError(f"{document['error']}: {text}")


def _limit(pod: Object, container: str) -> str:
    spec = pod.get("spec") or {}
    for item in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        if item["name"] == container:
            return str(((item.get("resources") or {}).get("limits") or {}).get("memory", "none set"))
    return "unknown"


def not_scheduled(pod: Object, why: str) -> Unschedulable:
    """A pod that waited for a node as long as it may."""
    return Unschedulable(
        f"{where(pod)} found no node in time: {why}. Check the NodePool's limits and requirements, and "
        f"EC2's capacity.",
        reason="Unschedulable",
    )
