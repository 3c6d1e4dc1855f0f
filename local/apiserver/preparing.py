"""What happens to an object besides defaults when it is created: initial status, addresses, priorities."""

from __future__ import annotations

import ipaddress
import itertools

from local.apiserver.calls import Call
from local.apiserver.defaults import qos_class
from local.apiserver.errors import Object, forbidden, invalid, invalid_value
from local.apiserver.schemas import fill_defaults

SERVICE_NETWORK = ipaddress.ip_network("10.96.0.0/16")
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


def prepare_create(call: Call, obj: Object) -> None:
    """Changes `obj`, which the caller owns, in place; ApiError where admission refuses it."""
    where = call.resource.storage
    if where == ("", "pods"):
        _admit_priority(call, obj)
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj["spec"])}
    elif where == ("", "namespaces"):
        obj.setdefault("spec", {})["finalizers"] = ["kubernetes"]
        obj["status"] = {"phase": "Active"}
    elif where == ("", "nodes"):
        obj.setdefault("spec", {})
        taints = obj["spec"].setdefault("taints", [])
        if not any(t.get("key") == _NOT_READY["key"] for t in taints):
            taints.append(dict(_NOT_READY))  # TaintNodesByCondition; the node lifecycle controller lifts it
        obj.setdefault("status", {})
    elif where == ("", "services"):
        allocate_address(call, obj)
        obj["status"] = {"loadBalancer": {}}
    elif "status" in call.resource.subresources:
        if call.resource.custom:
            obj.pop("status", None)
            fill_defaults(obj, call.resource.schema)  # a status may have a default of its own
        else:
            obj["status"] = {}


def _admit_priority(call: Call, pod: Object) -> None:
    spec, name = pod["spec"], pod["spec"].get("priorityClassName")
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    if not name:
        spec.setdefault("priority", 0)
        return
    known = call.cluster.store.collection(("scheduling.k8s.io", "priorityclasses")).get("/" + name)
    if known is None and name not in _SYSTEM_PRIORITIES:
        subject = call.resource.subject(pod["metadata"].get("name", ""))
        raise forbidden(subject, f"no PriorityClass with name {name} was found")
    spec["priority"] = known["value"] if known else _SYSTEM_PRIORITIES[name]
    if known and "preemptionPolicy" in known:
        spec["preemptionPolicy"] = known["preemptionPolicy"]


def allocate_address(call: Call, service: Object) -> None:
    """Gives a Service its cluster IP; ApiError 422 if the one that it asks for is taken."""
    spec, used = service["spec"], call.cluster.service_ips
    if spec["type"] == "ExternalName":
        return
    wanted = spec.get("clusterIP") or ""
    if wanted == "":
        hosts = itertools.islice(SERVICE_NETWORK.hosts(), 10, None)
        wanted = next(str(h) for h in hosts if str(h) not in used)
    elif wanted in used:
        name = service["metadata"].get("name", "")
        detail = "failed to allocate IP " + wanted + ": provided IP is already allocated"
        raise invalid(call.resource.subject(name), [invalid_value("spec.clusterIPs", [wanted], detail)])
    if wanted != "None" and not call.dry_run:
        used.add(wanted)
    spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]


def release_address(call: Call, obj: Object) -> None:
    """Gives back the cluster IP of a Service that goes."""
    if call.resource.storage == ("", "services"):
        call.cluster.service_ips.discard(obj["spec"].get("clusterIP", ""))
