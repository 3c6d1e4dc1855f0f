"""Schemas of the built-in kinds, read from the typed models of the `kubernetes` client package.

The models know every field, its type and whether it is required. What they do not know is how lists merge:
that is the table below, from the `patchMergeKey` and `listMapKey` markers of k8s.io/api.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from local.apiserver.errors import Object

MERGE_KEYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("V1ObjectMeta", "ownerReferences"): ("uid",),
    ("V1PodSpec", "containers"): ("name",),
    ("V1PodSpec", "initContainers"): ("name",),
    ("V1PodSpec", "ephemeralContainers"): ("name",),
    ("V1PodSpec", "volumes"): ("name",),
    ("V1PodSpec", "imagePullSecrets"): ("name",),
    ("V1PodSpec", "hostAliases"): ("ip",),
    ("V1PodSpec", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("V1PodSpec", "schedulingGates"): ("name",),
    ("V1PodSpec", "resourceClaims"): ("name",),
    ("V1Container", "env"): ("name",),
    ("V1Container", "ports"): ("containerPort", "protocol"),
    ("V1Container", "volumeMounts"): ("mountPath",),
    ("V1Container", "volumeDevices"): ("devicePath",),
    ("V1ResourceRequirements", "claims"): ("name",),
    ("V1PodStatus", "conditions"): ("type",),
    ("V1PodStatus", "podIPs"): ("ip",),
    ("V1PodStatus", "hostIPs"): ("ip",),
    ("V1NodeStatus", "conditions"): ("type",),
    ("V1NodeStatus", "addresses"): ("type",),
    ("V1NamespaceStatus", "conditions"): ("type",),
    ("V1ServiceSpec", "ports"): ("port", "protocol"),
    ("V1ServiceStatus", "conditions"): ("type",),
    ("V1ServiceAccount", "secrets"): ("name",),
    ("V1ServiceAccount", "imagePullSecrets"): ("name",),
    ("V1DeploymentStatus", "conditions"): ("type",),
    ("V1ReplicaSetStatus", "conditions"): ("type",),
    ("V1DaemonSetStatus", "conditions"): ("type",),
    ("V1JobStatus", "conditions"): ("type",),
    ("V1CustomResourceDefinitionStatus", "conditions"): ("type",),
}
"""Lists of objects that merge by key: (model, field) to keys. All others are atomic."""

STRATEGIC_ONLY: dict[tuple[str, str], tuple[str, ...]] = {("V1NodeSpec", "taints"): ("key",)}
"""Lists that strategic merge patches merge while server-side apply replaces them."""

SETS = {("V1ObjectMeta", "finalizers"), ("V1NodeSpec", "podCIDRs")}
ATOMIC_MAPS = {
    "V1LabelSelector",
    "V1ObjectReference",
    "V1LocalObjectReference",
    "V1SecretKeySelector",
    "V1ConfigMapKeySelector",
    "V1ObjectFieldSelector",
    "V1ResourceFieldSelector",
    "V1NodeSelector",
    "V1ScopeSelector",
    "V1TypedLocalObjectReference",
    "V1RoleRef",
}
ATOMIC_FIELDS = {
    ("V1ServiceSpec", "selector"),
    ("V1PodSpec", "nodeSelector"),
    ("V1ReplicationControllerSpec", "selector"),
}

_SCALARS: dict[str, Object] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "datetime": {"type": "string", "format": "date-time"},
    "object": {"x-kubernetes-preserve-unknown-fields": True},
}
PREFIX = "#/components/schemas/"


def ref(model: str) -> Object:
    return {"$ref": PREFIX + model}


def _type(text: str) -> Object:
    if text in _SCALARS:
        return dict(_SCALARS[text])
    inner = re.fullmatch(r"list\[(.+)\]", text)
    if inner:
        return {"type": "array", "items": _type(inner[1])}
    inner = re.fullmatch(r"dict\[str, (.+)\]", text) or re.fullmatch(r"dict\(str, (.+)\)", text)
    if inner:
        return {"type": "object", "additionalProperties": _type(inner[1])}
    return ref(text)


def _field(model: str, name: str, kind: str) -> Object:
    schema, where = _type(kind), (model, name)
    if (model, name) == ("V1ObjectMeta", "managedFields") or model == "V1JSONSchemaProps":
        return {"x-kubernetes-preserve-unknown-fields": True}
    if where in MERGE_KEYS:
        schema["x-kubernetes-list-type"] = "map"
        schema["x-kubernetes-list-map-keys"] = list(MERGE_KEYS[where])
        schema["x-kubernetes-patch-merge-key"] = MERGE_KEYS[where][0]
    elif where in STRATEGIC_ONLY:
        schema["x-kubernetes-patch-merge-key"] = STRATEGIC_ONLY[where][0]
    elif where in SETS:
        schema["x-kubernetes-list-type"] = "set"
    elif where in ATOMIC_FIELDS:
        schema["x-kubernetes-map-type"] = "atomic"
    return schema


def _is_required(cls: type[Any], attribute: str) -> bool:
    """Whether the model's setter refuses None: the message of the refusal is among its constants."""
    setter = getattr(cls, attribute).fset
    return any("must not be `None`" in c for c in setter.__code__.co_consts if isinstance(c, str))


@functools.cache
def definition(model: str) -> Object:
    """The schema of one model, its fields' models as `$ref`s. KeyError for a model that does not exist."""
    import kubernetes.client.models as models  # 700 modules: not at import time

    cls: type[Any] = vars(models)[model]
    names: dict[str, str] = cls.attribute_map
    properties = {names[a]: _field(model, names[a], t) for a, t in cls.openapi_types.items()}
    schema: Object = {"type": "object", "properties": properties, "x-model": model}
    needed = [names[a] for a in names if _is_required(cls, a)]
    if needed:
        schema["required"] = needed
    if model in ATOMIC_MAPS:
        schema["x-kubernetes-map-type"] = "atomic"
    return schema


def resolve(schema: Object) -> Object:
    """The schema itself, or what its `$ref` names."""
    target = schema.get("$ref")
    return definition(target.removeprefix(PREFIX)) if target else schema
