"""Pod status from container states: phase, conditions, containerStatuses. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from local.client.kinds import Obj
from local.client.objects import condition, stamp, with_condition


@dataclass
class ContainerState:
    """What is known of one container. Exactly one of waiting, running_since and terminated is set."""

    name: str
    image: str
    waiting: dict[str, str] | None = field(default_factory=lambda: {"reason": "ContainerCreating"})
    running_since: str | None = None
    terminated: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    restarts: int = 0
    started: bool = False
    ready: bool = False
    container_id: str = ""
    done: bool = False
    """Ended and will not run again."""

    def wait(self, reason: str, message: str = "") -> None:
        self._leave()
        self.waiting = {"reason": reason, **({"message": message} if message else {})}

    def run(self, container_id: str) -> None:
        self._leave()
        self.container_id = container_id
        self.running_since = stamp()

    def end(self, terminated: dict[str, Any]) -> None:
        self._leave()
        self.terminated = terminated

    def _leave(self) -> None:
        if self.terminated is not None:
            self.last = self.terminated
        self.waiting = self.running_since = self.terminated = None
        self.started = self.ready = False

    @property
    def succeeded(self) -> bool:
        return self.terminated is not None and self.terminated["exitCode"] == 0

    def to_status(self) -> Obj:
        """The containerStatuses entry."""
        if self.running_since:
            state: Obj = {"running": {"startedAt": self.running_since}}
        elif self.terminated:
            state = {"terminated": self.terminated}
        else:
            state = {"waiting": self.waiting}
        status: Obj = {
            "name": self.name,
            "image": self.image,
            "imageID": f"local://{self.image}" if self.container_id else "",
            "state": state,
            "lastState": {"terminated": self.last} if self.last else {},
            "ready": self.ready,
            "restartCount": self.restarts,
            "started": self.started,
        }
        if self.container_id:
            status["containerID"] = self.container_id
        return status


@dataclass
class PodState:
    """What the kubelet knows of one pod."""

    init: list[ContainerState]
    main: list[ContainerState]
    sidecars: frozenset[str] = frozenset()
    started_at: str = ""
    pod_ip: str = ""
    host_ip: str = ""
    sandbox: bool = False
    failed_reason: str = ""
    failed_message: str = ""

    @property
    def ended(self) -> bool:
        """Every container ended for good; sidecars may still run."""
        return bool(self.main) and all(each.done for each in self.main)

    @property
    def initialized(self) -> bool:
        """Every init container succeeded, every sidecar started."""
        return all(
            each.started or each.done if each.name in self.sidecars else each.succeeded and each.done
            for each in self.init
        )


def phase(state: PodState, restart_policy: str) -> str:
    """Pod phase as the kubelet derives it."""
    if state.failed_reason:
        # Said only once nothing runs any more.
        return "Running" if any(each.running_since for each in [*state.init, *state.main]) else "Failed"
    if any(each.done and not each.succeeded and each.name not in state.sidecars for each in state.init):
        return "Failed" if restart_policy == "Never" or all(each.done for each in state.main) else "Pending"
    if any(each.running_since for each in state.init if each.name in state.sidecars and state.ended):
        return "Running"  # ends when its sidecars have ended
    if state.ended:
        return "Succeeded" if all(each.succeeded for each in state.main) else "Failed"
    begun = any(each.running_since or each.terminated or each.last for each in state.main)
    return "Running" if begun else "Pending"


def _names(states: list[ContainerState]) -> str:
    return "[" + " ".join(each.name for each in states) + "]"


def pod_status(pod: Obj, state: PodState) -> Obj:
    """The status to patch; conditions of others (scheduler, readiness gates) are kept."""
    current = phase(state, pod["spec"].get("restartPolicy", "Always"))
    over = current in ("Succeeded", "Failed")
    watched = [*state.main, *(each for each in state.init if each.name in state.sidecars)]
    unready = [each for each in watched if not each.ready]
    not_initialized = [
        each
        for each in state.init
        if not (each.started or each.done if each.name in state.sidecars else each.succeeded and each.done)
    ]
    gates = [each["conditionType"] for each in pod["spec"].get("readinessGates") or []]
    open_gates = [each for each in gates if (condition(pod, each) or {}).get("status") != "True"]

    def entry(kind: str, good: bool, reason: str = "", message: str = "") -> Obj:
        result: Obj = {"type": kind, "status": "True" if good else "False", "lastProbeTime": None}
        if (reason and not good) or reason == "PodCompleted":
            result["reason"] = reason
            if message:
                result["message"] = message
        return result

    if over:
        word = "PodCompleted" if current == "Succeeded" else "PodFailed"
        new = [
            entry("PodReadyToStartContainers", False),
            entry(
                "Initialized",
                state.initialized,
                "PodCompleted" if current == "Succeeded" else "ContainersNotInitialized",
            ),
            entry("Ready", False, word),
            entry("ContainersReady", False, word),
        ]
    else:
        message = f"containers with unready status: {_names(unready)}"
        gate_text = "; ".join(
            f'corresponding condition of pod readiness gate "{each}" does not exist.' for each in open_gates
        )
        new = [
            entry("PodReadyToStartContainers", state.sandbox),
            entry(
                "Initialized",
                not not_initialized,
                "ContainersNotInitialized",
                f"containers with incomplete status: {_names(not_initialized)}",
            ),
            entry(
                "Ready",
                not unready and not open_gates,
                "ContainersNotReady" if unready else "ReadinessGatesNotReady",
                message if unready else gate_text,
            ),
            entry("ContainersReady", not unready, "ContainersNotReady", message),
        ]
    conditions = list((pod.get("status") or {}).get("conditions") or [])
    if not any(each["type"] == "PodScheduled" for each in conditions):
        new.append(entry("PodScheduled", True))
    for each in new:
        conditions = with_condition(conditions, each)
    status: Obj = {
        "phase": current,
        "conditions": conditions,
        "hostIP": state.host_ip,
        "hostIPs": [{"ip": state.host_ip}],
        "startTime": state.started_at,
        "containerStatuses": [each.to_status() for each in state.main],
    }
    if state.init:
        status["initContainerStatuses"] = [each.to_status() for each in state.init]
    if state.pod_ip and state.sandbox:
        status["podIP"] = state.pod_ip
        status["podIPs"] = [{"ip": state.pod_ip}]
    if state.failed_reason and over:
        status["reason"] = state.failed_reason
        status["message"] = state.failed_message
    return status
