"""Pods and pod templates: what a pod spec must say, and what an update may change."""

from __future__ import annotations

import json
from decimal import Decimal

from local.apiserver.errors import (
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    unsupported,
)
from local.apiserver.validation.names import check_label_name
from local.apiserver.validation.quantities import QUANTITY_TEXT, parse_quantity

RESTART_POLICIES = ("Always", "OnFailure", "Never")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_NATIVE = ("cpu", "memory", "ephemeral-storage", "pods")
_UPDATE_TEXT = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check_pod_spec(spec: Object, path: str = "spec") -> list[FieldError]:
    errors: list[FieldError] = []
    volumes = [v.get("name", "") for v in spec.get("volumes") or ()]
    for i, name in enumerate(volumes):
        where = f"{path}.volumes[{i}].name"
        errors += check_label_name(where, name) if name else [required(where)]
        if name in volumes[:i]:
            errors.append(duplicate(where, name))
    if not spec.get("containers"):
        errors.append(required(f"{path}.containers"))
    seen: set[str] = set()
    for field in ("containers", "initContainers"):
        for i, container in enumerate(spec.get(field) or ()):
            errors += _check_container(container, f"{path}.{field}[{i}]", volumes, seen)
    policy = spec.get("restartPolicy")
    if policy not in RESTART_POLICIES:
        errors.append(unsupported(f"{path}.restartPolicy", policy, RESTART_POLICIES))
    grace = spec.get("terminationGracePeriodSeconds", 30)
    if grace < 0:
        text = "must be greater than or equal to 0"
        errors.append(invalid_value(f"{path}.terminationGracePeriodSeconds", grace, text))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and deadline < 1:
        text = "must be between 1 and 2147483647, inclusive"
        errors.append(invalid_value(f"{path}.activeDeadlineSeconds", deadline, text))
    return errors + _check_tolerations(spec.get("tolerations") or (), f"{path}.tolerations")


def _check_container(container: Object, path: str, volumes: list[str], seen: set[str]) -> list[FieldError]:
    name = container.get("name", "")
    errors = check_label_name(f"{path}.name", name) if name else [required(f"{path}.name")]
    if name and name in seen:
        errors.append(duplicate(f"{path}.name", name))
    seen.add(name)
    if not container.get("image"):
        errors.append(required(f"{path}.image"))
    policy = container.get("imagePullPolicy")
    if policy not in _PULL_POLICIES:
        errors.append(unsupported(f"{path}.imagePullPolicy", policy, _PULL_POLICIES))
    for i, entry in enumerate(container.get("env") or ()):
        if not entry.get("name"):
            errors.append(required(f"{path}.env[{i}].name"))
        if entry.get("value") and entry.get("valueFrom"):
            text = "may not be specified when `value` is not empty"
            errors.append(invalid_value(f"{path}.env[{i}].valueFrom", "", text))
    for i, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort", 0)
        if not 0 < number < 65536:
            where = f"{path}.ports[{i}].containerPort"
            text = "must be between 1 and 65535, inclusive"
            errors.append(invalid_value(where, number, text) if number else required(where))
    for i, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{path}.volumeMounts[{i}]"
        if not mount.get("mountPath"):
            errors.append(required(f"{where}.mountPath"))
        if mount.get("name") not in volumes:
            text = f"Not found: {json.dumps(mount.get('name', ''))}"
            errors.append(FieldError(f"{where}.name", "FieldValueNotFound", text))
    return errors + _check_resources(container.get("resources") or {}, f"{path}.resources")


def _amounts(amounts: Object, path: str, errors: list[FieldError]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for name, text in amounts.items():
        try:
            found[name] = parse_quantity(text)
        except ValueError:
            errors.append(invalid_value(f"{path}[{name}]", text, QUANTITY_TEXT))
            continue
        if found[name] < 0:
            errors.append(invalid_value(f"{path}[{name}]", text, "must be greater than or equal to 0"))
        elif "/" in name and found[name] % 1:
            errors.append(invalid_value(f"{path}[{name}]", text, "must be an integer"))
        elif "/" not in name and name not in _NATIVE and not name.startswith("hugepages-"):
            text = "must be a standard resource type or fully qualified"
            errors.append(invalid_value(f"{path}[{name}]", name, text))
    return found


def _check_resources(resources: Object, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    limits = _amounts(resources.get("limits") or {}, f"{path}.limits", errors)
    requests = _amounts(resources.get("requests") or {}, f"{path}.requests", errors)
    for name, amount in requests.items():
        limit, shown = limits.get(name), resources["requests"][name]
        if "/" in name and limit is None:
            text = "Limit must be set for non overcommitable resources"
            errors.append(required(f"{path}.limits", text))
        elif limit is not None and "/" in name and amount != limit:
            text = f"must be equal to {name} limit of {resources['limits'][name]}"
            errors.append(invalid_value(f"{path}.requests", shown, text))
        elif limit is not None and amount > limit:
            text = f"must be less than or equal to {name} limit of {resources['limits'][name]}"
            errors.append(invalid_value(f"{path}.requests", shown, text))
    return errors


def _check_tolerations(tolerations: list[Object] | tuple[()], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, entry in enumerate(tolerations):
        operator = entry.get("operator") or "Equal"
        if operator not in ("Equal", "Exists", "Lt", "Gt"):
            errors.append(unsupported(f"{path}[{i}].operator", operator, ("Equal", "Exists")))
        elif operator == "Exists" and entry.get("value"):
            text = "value must be empty when `operator` is 'Exists'"
            errors.append(invalid_value(f"{path}[{i}].operator", entry["value"], text))
        elif not entry.get("key") and operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.append(invalid_value(f"{path}[{i}].operator", operator, text))
        if entry.get("tolerationSeconds") is not None and entry.get("effect") != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid_value(f"{path}[{i}].effect", entry.get("effect", ""), text))
    return errors


def _frozen(spec: Object) -> Object:
    """The parts of a pod spec that an update may not touch."""
    kept = {
        k: v
        for k, v in spec.items()
        if k not in ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")
    }
    for field in ("containers", "initContainers"):
        if field in kept:
            kept[field] = [{k: v for k, v in c.items() if k != "image"} for c in kept[field]]
    return kept


def check_pod(obj: Object, old: Object | None) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = check_pod_spec(spec)
    if old is None:
        return errors
    before = old["spec"]
    tolerations = spec.get("tolerations") or []
    lost = [t for t in before.get("tolerations") or () if t not in tolerations]
    if lost:
        errors.append(
            forbidden_field(
                "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
            )
        )
    if _frozen(spec) != _frozen(before):
        errors.append(forbidden_field("spec", _UPDATE_TEXT))
    return errors
