"""Values that the API server fills in for built-in kinds (pkg/apis/*/v1/defaults.go, default admission)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from local.apiserver.errors import Object
from local.apiserver.resources import Resource

Filler = Callable[[Object], None]


def _probe(probe: Object) -> None:
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    _http_get(probe)
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _http_get(handler: Object) -> None:
    if "httpGet" in handler:
        handler["httpGet"].setdefault("path", "/")
        handler["httpGet"].setdefault("scheme", "HTTP")


def pull_policy(image: str) -> str:
    """Always for an image without tag or digest, or tagged latest."""
    last = image.rsplit("/", 1)[-1]
    if "@" in last:
        return "IfNotPresent"
    return "Always" if ":" not in last or last.endswith(":latest") else "IfNotPresent"


def _container(container: Object) -> None:
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", pull_policy(container.get("image", "")))
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _http_get(hook)
    for entry in container.get("env") or ():
        ref = (entry.get("valueFrom") or {}).get("fieldRef")
        if ref is not None:
            ref.setdefault("apiVersion", "v1")


def _volume(volume: Object) -> None:
    if len(volume) == 1:
        volume["emptyDir"] = {}
    for source in ("secret", "configMap", "projected", "downwardAPI"):
        if source in volume:
            volume[source].setdefault("defaultMode", 420)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    downward = (volume.get("downwardAPI") or {}).get("items") or []
    for part in (volume.get("projected") or {}).get("sources") or ():
        downward += (part.get("downwardAPI") or {}).get("items") or []
        if "serviceAccountToken" in part:
            part["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    for item in downward:
        if "fieldRef" in item:
            item["fieldRef"].setdefault("apiVersion", "v1")


def pod_spec(spec: Object) -> None:
    """Defaults shared by pods and pod templates."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def _pod(pod: Object) -> None:
    spec = pod.setdefault("spec", {})
    pod_spec(spec)
    for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        resources = container["resources"]
        for name, amount in (resources.get("limits") or {}).items():
            resources.setdefault("requests", {}).setdefault(name, amount)
    spec.setdefault("enableServiceLinks", True)
    tolerations = spec.get("tolerations") or []
    for key in _TOLERATED:
        if not any(_tolerates(t, key) for t in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            )
    spec["tolerations"] = tolerations


def _tolerates(toleration: Object, key: str) -> bool:
    return toleration.get("effect") in (None, "", "NoExecute") and toleration.get("key") in (None, "", key)


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from cpu and memory alone."""
    seen, guaranteed = False, True
    for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        seen = seen or any(k in {**limits, **requests} for k in ("cpu", "memory"))
        guaranteed = guaranteed and all(
            k in limits and requests.get(k, limits[k]) == limits[k] for k in ("cpu", "memory")
        )
    return "BestEffort" if not seen else "Guaranteed" if guaranteed else "Burstable"


def _template(obj: Object) -> None:
    template = obj["spec"].setdefault("template", {})
    pod_spec(template.setdefault("spec", {}))


def _deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    _template(obj)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _replica_set(obj: Object) -> None:
    obj.setdefault("spec", {}).setdefault("replicas", 1)
    _template(obj)


def _daemon_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _template(obj)
    rolling: Object = {"maxUnavailable": 1, "maxSurge": 0}
    strategy = spec.setdefault("updateStrategy", {"type": "RollingUpdate"})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy["rollingUpdate"] = {**rolling, **strategy.get("rollingUpdate", {})}
    spec.setdefault("revisionHistoryLimit", 10)


def _job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    if not spec.setdefault("manualSelector", False) and "selector" not in spec and "uid" in obj["metadata"]:
        uid, name = obj["metadata"]["uid"], obj["metadata"].get("name", "")
        labels = spec.setdefault("template", {}).setdefault("metadata", {}).setdefault("labels", {})
        for prefix in ("batch.kubernetes.io/", ""):
            labels |= {f"{prefix}controller-uid": uid, f"{prefix}job-name": name}
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    _template(obj)


def _service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] != "ExternalName":
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")


def _namespace(obj: Object) -> None:
    meta = obj["metadata"]
    if meta.get("name"):
        meta["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}


def _endpoint_slice(obj: Object) -> None:
    obj.setdefault("endpoints", [])
    obj.setdefault("ports", [])
    for port in obj["ports"]:
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def _secret(obj: Object) -> None:
    import base64

    obj.setdefault("type", "Opaque")
    plain: dict[str, Any] = obj.pop("stringData", None) or {}
    if plain:
        coded = {k: base64.b64encode(str(v).encode()).decode() for k, v in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **coded}


def _event(obj: Object) -> None:
    obj.setdefault("eventTime", None)
    if "reportingController" not in obj:
        obj.setdefault("reportingComponent", "")
    obj.setdefault("reportingInstance", "")
    if obj["apiVersion"] == "v1":
        obj.setdefault("source", {})


def _binding(obj: Object) -> None:
    group = "rbac.authorization.k8s.io"
    obj.setdefault("roleRef", {}).setdefault("apiGroup", group)
    for subject in obj.get("subjects") or ():
        subject.setdefault("apiGroup", "" if subject.get("kind") == "ServiceAccount" else group)
        if not subject["apiGroup"]:
            del subject["apiGroup"]


def _network_policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if "policyTypes" not in spec:
        spec["policyTypes"] = ["Ingress", "Egress"] if "egress" in spec else ["Ingress"]


FILLERS: dict[tuple[str, str], Filler] = {
    ("", "events"): _event,
    ("", "namespaces"): _namespace,
    ("", "pods"): _pod,
    ("", "secrets"): _secret,
    ("", "services"): _service,
    ("apps", "daemonsets"): _daemon_set,
    ("apps", "deployments"): _deployment,
    ("apps", "replicasets"): _replica_set,
    ("batch", "jobs"): _job,
    ("discovery.k8s.io", "endpointslices"): _endpoint_slice,
    ("events.k8s.io", "events"): _event,
    ("networking.k8s.io", "networkpolicies"): _network_policy,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _binding,
    ("rbac.authorization.k8s.io", "rolebindings"): _binding,
}


def fill(resource: Resource, obj: Object) -> None:
    """Fills defaults into `obj`, which the caller owns, in place."""
    filler = FILLERS.get((resource.group, resource.plural))
    if filler:
        filler(obj)
