"""Checks of the other built-in kinds, by collection."""

from __future__ import annotations

from collections.abc import Callable

from local.apiserver.errors import (
    FieldError,
    Object,
    forbidden_field,
    invalid_value,
    required,
    unsupported,
)
from local.apiserver.selectors import select_labels
from local.apiserver.validation.names import check_label_name, check_labels
from local.apiserver.validation.pods import check_pod, check_pod_spec
from local.apiserver.validation.structural import check_definition

Check = Callable[[Object, Object | None], list[FieldError]]

IMMUTABLE = "field is immutable"


def _check_selector(obj: Object) -> list[FieldError]:
    spec = obj["spec"]
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    if not spec.get("selector"):
        return [required("spec.selector")]
    if not (spec["selector"].get("matchLabels") or spec["selector"].get("matchExpressions")):
        return [invalid_value("spec.selector", {}, "empty selector is invalid for deployment")]
    if not select_labels(spec["selector"], labels):
        text = "`selector` does not match template `labels`"
        return [invalid_value("spec.template.metadata.labels", labels, text)]
    return []


def _check_template(obj: Object, policies: tuple[str, ...]) -> list[FieldError]:
    template = obj["spec"]["template"]
    errors = check_labels("spec.template.labels", (template.get("metadata") or {}).get("labels") or {})
    errors += check_pod_spec(template["spec"], "spec.template.spec")
    policy = template["spec"]["restartPolicy"]
    if policy not in policies:
        errors.append(unsupported("spec.template.spec.restartPolicy", policy, policies))
    return errors


def _not_negative(obj: Object, *fields: str) -> list[FieldError]:
    return [
        invalid_value(f"spec.{f}", obj["spec"][f], "must be greater than or equal to 0")
        for f in fields
        if obj["spec"].get(f) is not None and obj["spec"][f] < 0
    ]


def _unchanged(obj: Object, old: Object | None, *fields: str) -> list[FieldError]:
    if old is None:
        return []
    changed = [f for f in fields if obj["spec"].get(f) != old["spec"].get(f)]
    return [invalid_value(f"spec.{f}", obj["spec"].get(f), IMMUTABLE) for f in changed]


def _workload(obj: Object, old: Object | None) -> list[FieldError]:
    errors = _not_negative(obj, "replicas", "minReadySeconds", "revisionHistoryLimit")
    errors += _check_selector(obj) + _check_template(obj, ("Always",))
    return errors + _unchanged(obj, old, "selector")


def _job(obj: Object, old: Object | None) -> list[FieldError]:
    errors = _not_negative(obj, "parallelism", "completions", "backoffLimit", "ttlSecondsAfterFinished")
    if obj["spec"].get("manualSelector") is False or obj["spec"].get("selector"):
        errors += _check_selector(obj)
    errors += _check_template(obj, ("OnFailure", "Never"))
    return errors + _unchanged(obj, old, "completions", "selector", "template", "completionMode")


def _service(obj: Object, old: Object | None) -> list[FieldError]:
    spec, errors = obj["spec"], list[FieldError]()
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec["type"] not in kinds:
        errors.append(unsupported("spec.type", spec["type"], kinds))
    ports = spec.get("ports") or []
    if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        errors.append(required("spec.ports"))
    for i, port in enumerate(ports):
        number = port.get("port", 0)
        if not 0 < number < 65536:
            errors.append(
                invalid_value(f"spec.ports[{i}].port", number, "must be between 1 and 65535, inclusive")
            )
        if len(ports) > 1 and not port.get("name"):
            errors.append(required(f"spec.ports[{i}].name"))
        elif port.get("name"):
            errors += check_label_name(f"spec.ports[{i}].name", port["name"])
    if old is not None and old["spec"].get("clusterIP") and spec["type"] == old["spec"]["type"]:
        for field in ("clusterIP", "clusterIPs"):
            if field not in spec:
                spec[field] = old["spec"][field]  # a replace may leave the allocated address out
        if spec["clusterIP"] != old["spec"]["clusterIP"]:
            errors.append(invalid_value("spec.clusterIPs[0]", [spec["clusterIP"]], "may not change once set"))
    return errors


def _data(obj: Object, old: Object | None) -> list[FieldError]:
    """ConfigMaps and Secrets: keys, size, and immutability."""
    errors: list[FieldError] = []
    size = sum(len(v) for f in ("data", "binaryData") for v in (obj.get(f) or {}).values())
    if size > 1024 * 1024:
        errors.append(FieldError("data", "FieldValueTooLong", "Too long: may not be more than 1048576 bytes"))
    if old is None:
        return errors
    if obj["kind"] == "Secret" and obj.get("type") != old.get("type"):
        errors.append(invalid_value("type", obj.get("type"), IMMUTABLE))
    if old.get("immutable"):
        text = "field is immutable when `immutable` is set"
        for field in ("data", "binaryData", "immutable"):
            if obj.get(field) != old.get(field):
                errors.append(forbidden_field(field, text))
    return errors


def _lease(obj: Object, old: Object | None) -> list[FieldError]:
    spec, errors = obj.get("spec") or {}, list[FieldError]()
    if spec.get("leaseDurationSeconds") is not None and spec["leaseDurationSeconds"] <= 0:
        text = "must be greater than 0"
        errors.append(invalid_value("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], text))
    if spec.get("leaseTransitions") is not None and spec["leaseTransitions"] < 0:
        text = "must be greater than or equal to 0"
        errors.append(invalid_value("spec.leaseTransitions", spec["leaseTransitions"], text))
    return errors


def _node(obj: Object, old: Object | None) -> list[FieldError]:
    before, after = ((o or {}).get("spec", {}).get("providerID", "") for o in (old, obj))
    if old is not None and before and before != after:
        return [
            forbidden_field(
                "spec.providerID", 'node updates may not change providerID except from "" to valid'
            )
        ]
    return []


def _endpoint_slice(obj: Object, old: Object | None) -> list[FieldError]:
    kinds = ("FQDN", "IPv4", "IPv6")
    kind = obj.get("addressType")
    if kind not in kinds:
        return [unsupported("addressType", kind, kinds) if kind else required("addressType")]
    if old is not None and old.get("addressType") != kind:
        return [invalid_value("addressType", kind, IMMUTABLE)]
    return [
        required(f"endpoints[{i}].addresses", "must contain at least 1 address")
        for i, e in enumerate(obj["endpoints"])
        if not e.get("addresses")
    ]


def _event(obj: Object, old: Object | None) -> list[FieldError]:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    namespace = obj["metadata"].get("namespace", "")
    if about.get("namespace", namespace) not in (namespace, "") or (
        not about.get("namespace") and namespace != "default"
    ):
        return [
            invalid_value(
                "involvedObject.namespace", about.get("namespace", ""), "does not match event.namespace"
            )
        ]
    return []


def _role_binding(obj: Object, old: Object | None) -> list[FieldError]:
    ref = obj.get("roleRef") or {}
    if old is not None and ref != old.get("roleRef"):
        return [invalid_value("roleRef", ref, "cannot change roleRef")]
    errors = [] if ref.get("name") else [required("roleRef.name")]
    kinds = ("Role", "ClusterRole") if obj["kind"] == "RoleBinding" else ("ClusterRole",)
    if ref.get("kind") not in kinds:
        errors.append(unsupported("roleRef.kind", ref.get("kind", ""), kinds))
    for i, subject in enumerate(obj.get("subjects") or ()):
        path = f"subjects[{i}]"
        if not subject.get("name"):
            errors.append(required(f"{path}.name"))
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            names = ("ServiceAccount", "User", "Group")
            errors.append(unsupported(f"{path}.kind", subject.get("kind", ""), names))
        elif subject["kind"] == "ServiceAccount" and obj["kind"] == "ClusterRoleBinding":
            errors += [] if subject.get("namespace") else [required(f"{path}.namespace")]
    return errors


def _role(obj: Object, old: Object | None) -> list[FieldError]:
    """Rules for resources, and in ClusterRoles for paths; never both in one rule."""
    errors: list[FieldError] = []
    for i, rule in enumerate(obj.get("rules") or ()):
        path, urls = f"rules[{i}]", rule.get("nonResourceURLs")
        if not rule.get("verbs"):
            errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
        if urls:
            if obj["kind"] == "Role":
                text = "namespaced rules cannot apply to non-resource URLs"
                errors.append(invalid_value(f"{path}.nonResourceURLs", urls, text))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                text = "rules cannot apply to both regular resources and non-resource URLs"
                errors.append(invalid_value(f"{path}.nonResourceURLs", urls, text))
            continue
        if not rule.get("apiGroups"):
            errors.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            errors.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return errors


def _definition(obj: Object, old: Object | None) -> list[FieldError]:
    spec = obj.get("spec") or {}
    names, group = spec.get("names") or {}, spec.get("group", "")
    errors = [required(f"spec.{f}") for f in ("group", "scope", "versions") if not spec.get(f)]
    errors += [required(f"spec.names.{f}") for f in ("plural", "kind") if not names.get(f)]
    if errors:
        return errors
    name = obj["metadata"].get("name", "")
    if name != f"{names['plural']}.{group}":
        errors.append(invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if spec["scope"] not in ("Cluster", "Namespaced"):
        errors.append(unsupported("spec.scope", spec["scope"], ("Cluster", "Namespaced")))
    errors += _unchanged(obj, old, "scope")
    stored = [v for v in spec["versions"] if v.get("storage")]
    if len(stored) != 1:
        text = "must have exactly one version marked as storage version"
        errors.append(invalid_value("spec.versions", [v.get("name") for v in spec["versions"]], text))
    for i, version in enumerate(spec["versions"]):
        schema, path = (version.get("schema") or {}).get("openAPIV3Schema"), f"spec.versions[{i}]"
        if not version.get("name"):
            errors.append(required(f"{path}.name"))
        if not schema:
            errors.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        else:
            errors += check_definition(schema, f"{path}.schema.openAPIV3Schema")
    if (spec.get("conversion") or {}).get("strategy", "None") != "None":
        errors.append(unsupported("spec.conversion.strategy", spec["conversion"]["strategy"], ("None",)))
    return errors


CHECKS: dict[tuple[str, str], Check] = {
    ("", "configmaps"): _data,
    ("", "events"): _event,
    ("", "nodes"): _node,
    ("", "pods"): check_pod,
    ("", "secrets"): _data,
    ("", "services"): _service,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _definition,
    ("apps", "daemonsets"): _workload,
    ("apps", "deployments"): _workload,
    ("apps", "replicasets"): _workload,
    ("batch", "jobs"): _job,
    ("coordination.k8s.io", "leases"): _lease,
    ("discovery.k8s.io", "endpointslices"): _endpoint_slice,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _role_binding,
    ("rbac.authorization.k8s.io", "rolebindings"): _role_binding,
    ("rbac.authorization.k8s.io", "clusterroles"): _role,
    ("rbac.authorization.k8s.io", "roles"): _role,
}
