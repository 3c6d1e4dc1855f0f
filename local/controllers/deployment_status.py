"""A Deployment's status: counts, Available and Progressing, the progress deadline. Pure."""

from __future__ import annotations

from local.client.kinds import Obj
from local.client.objects import age, condition, stamp, with_condition
from local.controllers.rollout import bounds


def deployment_status(deployment: Obj, sets: list[Obj], new: Obj | None, *, created: bool) -> Obj:
    """The whole status as it should be now."""
    spec, old = deployment["spec"], deployment.get("status") or {}

    def total(name: str, of: list[Obj]) -> int:
        return sum((each.get("status") or {}).get(name, 0) for each in of)

    wanted = spec.get("replicas", 1)
    available = total("availableReplicas", sets)
    status: Obj = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": total("replicas", sets),
        "updatedReplicas": total("replicas", [new] if new else []),
        "readyReplicas": total("readyReplicas", sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, total("replicas", sets) - available, wanted - available),
    }
    conditions = list(old.get("conditions") or [])
    _, unavailable = bounds(spec)
    enough = available >= wanted - unavailable
    conditions = _set(
        conditions,
        "Available",
        "True" if enough else "False",
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "Deployment has minimum availability."
        if enough
        else "Deployment does not have minimum availability.",
    )
    conditions = _progressing(deployment, status, conditions, new, created=created)
    failure = next(
        (
            each
            for rs in sets
            for each in (rs.get("status") or {}).get("conditions") or []
            if each["type"] == "ReplicaFailure"
        ),
        None,
    )
    if failure:
        conditions = _set(conditions, "ReplicaFailure", "True", failure["reason"], failure["message"])
    else:
        conditions = [each for each in conditions if each["type"] != "ReplicaFailure"]
    status["conditions"] = conditions
    return status


def complete(deployment: Obj, status: Obj) -> bool:
    wanted = deployment["spec"].get("replicas", 1)
    return bool(
        status["updatedReplicas"] == wanted
        and status["replicas"] == wanted
        and status["availableReplicas"] == wanted
        and status["observedGeneration"] >= deployment["metadata"].get("generation", 0)
    )


def _progressing(
    deployment: Obj, status: Obj, conditions: list[Obj], new: Obj | None, *, created: bool
) -> list[Obj]:
    spec, old = deployment["spec"], deployment.get("status") or {}
    name = new["metadata"]["name"] if new else ""
    current = condition({"status": {"conditions": conditions}}, "Progressing")
    if spec.get("paused"):
        if current is None or current["reason"] != "DeploymentPaused":
            return _set(conditions, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
        return conditions
    if new is None or spec.get("progressDeadlineSeconds", 600) >= 2**31 - 1:
        return conditions
    if complete(deployment, status):
        text = f'ReplicaSet "{name}" has successfully progressed.'
        return _set(conditions, "Progressing", "True", "NewReplicaSetAvailable", text)
    if created:
        text = f'Created new replica set "{name}"'
        return _set(conditions, "Progressing", "True", "NewReplicaSetCreated", text, touch=True)
    if _moved(status, old) or (current is not None and current["reason"] == "DeploymentPaused"):
        text = f'ReplicaSet "{name}" is progressing.'
        return _set(conditions, "Progressing", "True", "ReplicaSetUpdated", text, touch=True)
    if current is None:
        return _set(
            conditions,
            "Progressing",
            "True",
            "FoundNewReplicaSet",
            f'Found new replica set "{name}"',
            touch=True,
        )
    if current["reason"] == "NewReplicaSetAvailable" and status["observedGeneration"] != old.get(
        "observedGeneration"
    ):
        return _set(
            conditions,
            "Progressing",
            "True",
            "ReplicaSetUpdated",
            f'ReplicaSet "{name}" is progressing.',
            touch=True,
        )
    # A finished rollout whose pods became unready later is no rollout that hangs.
    if current["reason"] != "NewReplicaSetAvailable" and age(current.get("lastUpdateTime")) >= spec.get(
        "progressDeadlineSeconds", 600
    ):
        text = f'ReplicaSet "{name}" has timed out progressing.'
        return _set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", text)
    return conditions


def _moved(status: Obj, old: Obj) -> bool:
    """Did the rollout get on since the last status?"""
    before = old.get("replicas", 0) - old.get("updatedReplicas", 0)
    return bool(
        status["updatedReplicas"] > old.get("updatedReplicas", 0)
        or status["replicas"] - status["updatedReplicas"] < before
        or status["readyReplicas"] > old.get("readyReplicas", 0)
        or status["availableReplicas"] > old.get("availableReplicas", 0)
    )


def _set(
    conditions: list[Obj], kind: str, status: str, reason: str, message: str, *, touch: bool = False
) -> list[Obj]:
    old = condition({"status": {"conditions": conditions}}, kind)
    new = {"type": kind, "status": status, "reason": reason, "message": message}
    if old and not touch and all(old.get(name) == value for name, value in new.items()):
        return conditions
    return with_condition(conditions, {**new, "lastUpdateTime": stamp()})


def progress_left(deployment: Obj, status: Obj) -> float | None:
    """Seconds until the progress deadline must be looked at; None when nothing is in progress."""
    current = condition({"status": status}, "Progressing")
    limit = deployment["spec"].get("progressDeadlineSeconds", 600)
    if current is None or current["reason"] in (
        "NewReplicaSetAvailable",
        "ProgressDeadlineExceeded",
        "DeploymentPaused",
    ):
        return None
    return float(max(0.2, limit - age(current.get("lastUpdateTime")) + 0.2))
