"""A container's environment: literal values, references to pod fields, ConfigMaps and Secrets, $(VAR)
expansion.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from local.client.kinds import Obj
from local.client.quantity import parse_quantity


class ConfigError(Exception):
    """The container cannot be configured; the text is what the kubelet reports."""


@dataclass(frozen=True)
class Sources:
    """ConfigMaps and Secrets that a pod names, by object name; a missing one is absent."""

    configmaps: Mapping[str, Obj] = field(default_factory=dict)
    secrets: Mapping[str, Obj] = field(default_factory=dict)


def configmap_data(configmap: Obj) -> dict[str, bytes]:
    plain = {key: value.encode() for key, value in (configmap.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (configmap.get("binaryData") or {}).items()}
    return {**plain, **binary}


def secret_data(secret: Obj) -> dict[str, bytes]:
    plain = {key: value.encode() for key, value in (secret.get("stringData") or {}).items()}
    return {**{key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}, **plain}


_REFERENCE = re.compile(r"\$(?:\$|\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\))")


def expand(text: str, known: Mapping[str, str]) -> str:
    """Expand $(NAME) from `known`; `$$` is one dollar; an unknown name stays as written."""

    def replace(found: re.Match[str]) -> str:
        if found.group(0) == "$$":
            return "$"
        return known.get(found.group(1), found.group(0))

    return _REFERENCE.sub(replace, text)


def field_value(pod: Obj, path: str, pod_ip: str, host_ip: str) -> str:
    """Value of a downward API field; raises ConfigError for one that is not served."""
    meta, spec = pod["metadata"], pod["spec"]
    simple = {
        "metadata.name": meta.get("name", ""),
        "metadata.namespace": meta.get("namespace", ""),
        "metadata.uid": meta.get("uid", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
        "status.hostIP": host_ip,
        "status.hostIPs": host_ip,
    }
    if path in simple:
        return str(simple[path])
    found = re.fullmatch(r"metadata\.(labels|annotations)(?:\['([^']+)'\])?", path)
    if found:
        values = meta.get(found.group(1)) or {}
        if found.group(2):
            return str(values.get(found.group(2), ""))
        return "\n".join(f'{key}="{_escaped(value)}"' for key, value in sorted(values.items()))
    raise ConfigError(f"unsupported fieldPath: {path}")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(pod: Obj, container: Obj, reference: Obj, allocatable: Mapping[str, str]) -> str:
    """Value of a resourceFieldRef, in units of its divisor, rounded up; limits fall back to the node's
    allocatable.
    """
    name = reference.get("containerName")
    if name:
        every = [*(pod["spec"].get("containers") or []), *(pod["spec"].get("initContainers") or [])]
        container = next((each for each in every if each["name"] == name), container)
    kind, _, resource = reference["resource"].partition(".")
    given = ((container.get("resources") or {}).get(kind)) or {}
    text = given.get(resource)
    if text is None:
        text = allocatable.get(resource, "0") if kind == "limits" else "0"
    divisor = parse_quantity(reference.get("divisor") or "1") or Decimal(1)
    return str(int((parse_quantity(text) / divisor).to_integral_value(ROUND_CEILING)))


def container_environment(
    pod: Obj, container: Obj, sources: Sources, pod_ip: str, host_ip: str, allocatable: Mapping[str, str]
) -> dict[str, str]:
    """The pod's own variables in order, expanded; raises ConfigError when a required source is missing."""
    result: dict[str, str] = {}
    for entry in container.get("envFrom") or []:
        prefix = entry.get("prefix", "")
        for key, data in _whole_source(entry, sources).items():
            result[prefix + key] = data.decode(errors="surrogateescape")
    for entry in container.get("env") or []:
        if "valueFrom" not in entry:
            result[entry["name"]] = expand(entry.get("value") or "", result)
            continue
        source = entry["valueFrom"]
        if "fieldRef" in source:
            value: str | None = field_value(pod, source["fieldRef"]["fieldPath"], pod_ip, host_ip)
        elif "resourceFieldRef" in source:
            value = resource_value(pod, container, source["resourceFieldRef"], allocatable)
        else:
            value = _one_key(source, sources, pod["metadata"]["namespace"])
        if value is not None:
            result[entry["name"]] = value
    return result


def _whole_source(entry: Obj, sources: Sources) -> dict[str, bytes]:
    for field_name, objects, data, kind in (
        ("configMapRef", sources.configmaps, configmap_data, "configmap"),
        ("secretRef", sources.secrets, secret_data, "secret"),
    ):
        reference = entry.get(field_name)
        if reference:
            found = objects.get(reference["name"])
            if found is not None:
                return data(found)
            if reference.get("optional"):
                return {}
            raise ConfigError(f'{kind} "{reference["name"]}" not found')
    return {}


def _one_key(source: Obj, sources: Sources, namespace: str) -> str | None:
    for field_name, objects, data, kind in (
        ("configMapKeyRef", sources.configmaps, configmap_data, "ConfigMap"),
        ("secretKeyRef", sources.secrets, secret_data, "Secret"),
    ):
        reference = source.get(field_name)
        if not reference:
            continue
        name, key = reference.get("name", ""), reference["key"]
        found = objects.get(name)
        if found is not None and key in data(found):
            return data(found)[key].decode(errors="surrogateescape")
        if reference.get("optional"):
            return None
        if found is None:
            raise ConfigError(f'{kind.lower()} "{name}" not found')
        raise ConfigError(f"couldn't find key {key} in {kind} {namespace}/{name}")
    raise ConfigError(f"env source {sorted(source)} is not supported")
