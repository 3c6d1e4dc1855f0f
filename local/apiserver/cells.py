"""What stands in the cells that `kubectl get` prints for built-in kinds (pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from local.apiserver.errors import Object

Cell = Callable[[Object], Any]


def human_duration(seconds: float) -> str:
    """A duration in kubectl's words: 42s, 3m12s, 59m, 5h10m, 2d3h, 400d, 3y12d."""
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s < 120:
        return f"{max(s, 0)}s"
    m, h, d = s // 60, s // 3600, s // 86400
    if m < 10:
        return f"{m}m" + (f"{s % 60}s" if s % 60 else "")
    if m < 180:
        return f"{m}m"
    if h < 8:
        return f"{h}h" + (f"{m % 60}m" if m % 60 else "")
    if h < 48:
        return f"{h}h"
    if d < 8:
        return f"{d}d" + (f"{h % 24}h" if h % 24 else "")
    if d < 365 * 2:
        return f"{d}d"
    years, days = divmod(d, 365)
    return f"{years}y" + (f"{days}d" if days and years < 8 else "")


def ago(text: str | None) -> str:
    """How long ago an RFC 3339 time was."""
    if not text:
        return "<unknown>"
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return "<unknown>"
    return human_duration((datetime.now(UTC) - then).total_seconds())


def age(obj: Object) -> str:
    return ago(obj["metadata"].get("creationTimestamp"))


def at(path: str, missing: Any = "<none>") -> Cell:
    parts = path.split(".")

    def cell(obj: Object) -> Any:
        value: Any = obj
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else None
        return missing if value is None or value == "" else value

    return cell


def number(path: str) -> Cell:
    return at(path, 0)


def containers(path: str, field: str) -> Cell:
    def cell(obj: Object) -> str:
        value: Any = obj
        for part in path.split("."):
            value = value.get(part) or {}
        return ",".join(c.get(field, "") for c in value.get("containers") or ())

    return cell


def selector(obj: Object) -> str:
    selector = obj["spec"].get("selector") or {}
    labels = selector.get("matchLabels", selector)
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items()) if isinstance(v, str)) or "<none>"


def pod_reason(pod: Object) -> str:
    """The status word of a pod: what its phase, its init containers and then its containers say."""
    status = pod.get("status") or {}
    reason = status.get("reason") or status.get("phase") or "Unknown"
    for i, init in enumerate(status.get("initContainerStatuses") or ()):
        state = init.get("state") or {}
        if (state.get("terminated") or {"exitCode": 1}).get("exitCode") == 0:
            continue
        if "terminated" in state:
            ended = state["terminated"]
            return "Init:" + (ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}")
        waiting = (state.get("waiting") or {}).get("reason")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{i}/{len(pod['spec'].get('initContainers') or ())}"
    running = False
    for container in reversed(status.get("containerStatuses") or ()):
        state = container.get("state") or {}
        if (state.get("waiting") or {}).get("reason"):
            reason = state["waiting"]["reason"]
        elif "terminated" in state:
            ended = state["terminated"]
            signal = ended.get("signal")
            fallback = f"Signal:{signal}" if signal else f"ExitCode:{ended.get('exitCode', 0)}"
            reason = ended.get("reason") or fallback
        elif container.get("ready") and "running" in state:
            running = True
    if reason == "Completed" and running:
        reason = "Running"
    if status.get("phase") == "Pending" and reason == "Pending" and is_gated(pod):
        return "SchedulingGated"
    return reason


def is_gated(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in conditions)


def pod_status(pod: Object) -> str:
    if pod["metadata"].get("deletionTimestamp"):
        return "Unknown" if (pod.get("status") or {}).get("reason") == "NodeLost" else "Terminating"
    return pod_reason(pod)


def pod_ready(pod: Object) -> str:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ready = sum(bool(c.get("ready")) for c in statuses)
    return f"{ready}/{len(pod['spec'].get('containers') or ())}"


def pod_restarts(pod: Object) -> str:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    total = sum(c.get("restartCount", 0) for c in statuses)
    ends = [(c.get("lastState") or {}).get("terminated", {}).get("finishedAt") for c in statuses]
    last = max((e for e in ends if e), default=None)
    return f"{total} ({ago(last)} ago)" if total and last else str(total)


def gates(pod: Object) -> str:
    return "<none>" if not pod["spec"].get("readinessGates") else str(len(pod["spec"]["readinessGates"]))


def node_status(node: Object) -> str:
    conditions = {c["type"]: c["status"] for c in (node.get("status") or {}).get("conditions") or ()}
    words = (
        ["Ready" if conditions.get("Ready") == "True" else "NotReady"]
        if "Ready" in conditions
        else ["Unknown"]
    )
    if (node.get("spec") or {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def node_roles(node: Object) -> str:
    labels = node["metadata"].get("labels") or {}
    prefix = "node-role.kubernetes.io/"
    return ",".join(sorted(k.removeprefix(prefix) for k in labels if k.startswith(prefix))) or "<none>"


def node_address(kind: str) -> Cell:
    def cell(node: Object) -> str:
        addresses = (node.get("status") or {}).get("addresses") or ()
        return next((a["address"] for a in addresses if a["type"] == kind), "<none>")

    return cell


def service_ports(service: Object) -> str:
    shown = []
    for port in service["spec"].get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or "<none>"


def external(service: Object) -> str:
    spec = service["spec"]
    if spec["type"] == "ExternalName":
        return str(spec.get("externalName"))
    return "<pending>" if spec["type"] == "LoadBalancer" else "<none>"


def job_status(job: Object) -> str:
    conditions = {c["type"]: c["status"] for c in (job.get("status") or {}).get("conditions") or ()}
    for kind, word in (
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ):
        if conditions.get(kind) == "True":
            return word
    return "Terminating" if job["metadata"].get("deletionTimestamp") else "Running"


def job_completions(job: Object) -> str:
    done, wanted = (job.get("status") or {}).get("succeeded", 0), job["spec"].get("completions")
    return f"{done}/{wanted if wanted is not None else 1}"


def job_duration(job: Object) -> str:
    status = job.get("status") or {}
    if not status.get("startTime"):
        return ""
    end = status.get("completionTime")
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return human_duration((until - datetime.fromisoformat(status["startTime"])).total_seconds())


def event_about(event: Object) -> str:
    about = event.get("involvedObject") or event.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def event_seen(event: Object) -> str:
    for field in ("lastTimestamp", "deprecatedLastTimestamp", "eventTime", "firstTimestamp"):
        if event.get(field):
            return ago(event[field])
    return age(event)


def endpoints(piece: Object) -> str:
    found = [a for e in piece.get("endpoints") or () for a in e.get("addresses") or ()]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return (",".join(found[:3]) + more) or "<unset>"


def slice_ports(piece: Object) -> str:
    return ",".join(str(p.get("port", "*")) for p in piece.get("ports") or ()) or "<unset>"


def role_ref(binding: Object) -> str:
    return f"{binding['roleRef'].get('kind', '')}/{binding['roleRef'].get('name', '')}"


def ready_replicas(obj: Object) -> str:
    return f"{(obj.get('status') or {}).get('readyReplicas', 0)}/{obj['spec'].get('replicas', 0)}"
