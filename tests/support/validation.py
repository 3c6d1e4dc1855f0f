"""Objects against the schemas of their kinds: CRDs as the API server reads them, and the built-in types.

Both become JSON Schema (draft 2020-12), so that a library checks them and not the API server under test.
Unknown fields are refused everywhere, as by `--validate=strict`. Not evaluated: CEL rules
(x-kubernetes-validations), which `Schemas.unevaluated` lists; and most of what an API server checks of
built-in kinds in code (references, formats).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from local.apiserver.validation.structural import compile_pattern

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
SHARED_CRDS = ROOT.parent / "shared" / "crds"
QUANTITY = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
_COPIED = ("enum", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "minProperties",
           "maxProperties", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems")  # fmt: skip
_INT_OR_STRING: Object = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
# Fields of type `object` in the client's models are int-or-string, but for these, which are free.
_FREE = {("V1ObjectMeta", "managedFields"), ("V1ControllerRevision", "data")}
# Maps of quantities: YAML may say 2 where the API says "2".
_QUANTITIES = ("limits", "requests", "capacity", "allocatable", "hard", "used", "overhead", "default",
               "defaultRequest", "max", "min")  # fmt: skip


_BUILT_IN_GROUPS = {"", "apps", "batch", "policy", "apiextensions.k8s.io", "authentication.k8s.io",
                    "authorization.k8s.io", "coordination.k8s.io", "discovery.k8s.io", "events.k8s.io",
                    "networking.k8s.io", "rbac.authorization.k8s.io", "scheduling.k8s.io",
                    "storage.k8s.io"}  # fmt: skip
# The client's models know no enumerations: these are the ones that our manifests use (k8s.io/api).
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_ENUMS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("V1PodSpec", "restartPolicy"): ("Always", "OnFailure", "Never"),
    ("V1PodSpec", "dnsPolicy"): ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    ("V1Container", "imagePullPolicy"): ("Always", "IfNotPresent", "Never"),
    ("V1Container", "terminationMessagePolicy"): ("File", "FallbackToLogsOnError"),
    ("V1ContainerPort", "protocol"): _PROTOCOLS,
    ("V1ServicePort", "protocol"): _PROTOCOLS,
    ("V1NetworkPolicyPort", "protocol"): _PROTOCOLS,
    ("V1LabelSelectorRequirement", "operator"): _OPERATORS,
    ("V1NodeSelectorRequirement", "operator"): (*_OPERATORS, "Gt", "Lt"),
    ("V1Toleration", "operator"): ("Exists", "Equal", "Lt", "Gt"),
    ("V1Toleration", "effect"): ("", "NoSchedule", "PreferNoSchedule", "NoExecute"),
    ("V1SeccompProfile", "type"): ("Localhost", "RuntimeDefault", "Unconfined"),
    ("V1ServiceSpec", "type"): ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
    ("V1DeploymentStrategy", "type"): ("Recreate", "RollingUpdate"),
    ("V1PriorityClass", "preemptionPolicy"): ("Never", "PreemptLowerPriority"),
    ("V1StorageClass", "volumeBindingMode"): ("Immediate", "WaitForFirstConsumer"),
    ("V1StorageClass", "reclaimPolicy"): ("Delete", "Retain"),
    ("V1RoleRef", "kind"): ("Role", "ClusterRole"),
    ("RbacV1Subject", "kind"): ("ServiceAccount", "User", "Group"),
}
_LIST_ENUMS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("V1NetworkPolicySpec", "policyTypes"): ("Ingress", "Egress"),
    ("V1PersistentVolumeClaimSpec", "accessModes"): (
        "ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod",
    ),
}  # fmt: skip


def pattern(go: str) -> str:
    """A Go pattern as one for Python's `re.search`, which jsonschema uses."""
    found = compile_pattern(go)
    flags = "".join(name for name, bit in (("i", re.I), ("m", re.M), ("s", re.S)) if found.flags & bit)
    plain = re.sub(r"^\(\?[ims]+\)", "", found.pattern)
    return f"(?{flags}){plain}" if flags else plain


def structural(schema: Mapping[str, Any], *, top: bool = False) -> Object:
    """A structural schema as JSON Schema. top: whether apiVersion, kind and metadata belong to it."""
    if schema.get("x-kubernetes-int-or-string"):
        out: Object = {**_INT_OR_STRING}
        return {**out, "pattern": pattern(schema["pattern"])} if "pattern" in schema else out
    out = _value_rules(schema)
    kind = schema.get("type")
    if kind:
        out["type"] = [kind, "null"] if schema.get("nullable") else kind
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    more = schema.get("additionalProperties")
    properties = {name: structural(below) for name, below in schema.get("properties", {}).items()}
    if top or schema.get("x-kubernetes-embedded-resource"):
        for name in ("apiVersion", "kind"):
            properties[name] = {"type": "string"}
        properties["metadata"] = {"$ref": "#/$defs/V1ObjectMeta"}
    if kind == "object":
        if properties:
            out["properties"] = properties
        if isinstance(more, Mapping):
            out["additionalProperties"] = structural(more)
        elif not keeps and more is not True:
            out["additionalProperties"] = False
    if "items" in schema:
        out["items"] = structural(schema["items"])
    return out


def _value_rules(schema: Mapping[str, Any]) -> Object:
    """What constrains a value without declaring fields: also the parts of allOf, anyOf, oneOf and not."""
    out: Object = {name: schema[name] for name in (*_COPIED, "required") if name in schema}
    if "pattern" in schema:
        out["pattern"] = pattern(schema["pattern"])
    for name in ("allOf", "anyOf", "oneOf"):
        if name in schema:
            out[name] = [_junctor(part) for part in schema[name]]
    if "not" in schema:
        out["not"] = _junctor(schema["not"])
    return out


def _junctor(schema: Mapping[str, Any]) -> Object:
    out = _value_rules(schema)
    if "properties" in schema:
        out["properties"] = {name: _junctor(below) for name, below in schema["properties"].items()}
    if "items" in schema:
        out["items"] = _junctor(schema["items"])
    if "type" in schema:
        out["type"] = schema["type"]
    return out


@cache
def built_in() -> Object:
    """Every model of the `kubernetes` client as JSON Schema, by its name."""
    import kubernetes.client.models as models

    return {
        name: _model(name, cls)
        for name, cls in vars(models).items()
        if isinstance(cls, type) and hasattr(cls, "openapi_types")
    }


def _model(name: str, cls: Any) -> Object:
    properties = {json: _field(name, json, cls.openapi_types[own]) for own, json in cls.attribute_map.items()}
    required = [json for own, json in cls.attribute_map.items() if _is_required(cls, own)]
    out: Object = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**out, "required": required} if required else out


def _is_required(cls: Any, attribute: str) -> bool:
    """Whether the model's setter refuses None: the words of the refusal are among its constants."""
    constants = getattr(cls, attribute).fset.__code__.co_consts
    return any("must not be `None`" in each for each in constants if isinstance(each, str))


def _field(model: str, name: str, kind: str) -> Object:
    if (model, name) in _FREE or model == "V1JSONSchemaProps":
        return {}
    if (model, name) in _ENUMS:
        return {"enum": list(_ENUMS[model, name])}
    if (model, name) in _LIST_ENUMS:
        return {"type": "array", "items": {"enum": list(_LIST_ENUMS[model, name])}}
    if name in _QUANTITIES and kind.startswith("dict"):
        return {"type": "object", "additionalProperties": {"type": ["string", "number"], "pattern": QUANTITY}}
    if name in ("sizeLimit", "divisor"):
        return {"type": ["string", "number"], "pattern": QUANTITY}
    return _type(kind)


def _type(kind: str) -> Object:
    scalars = {"str": "string", "int": "integer", "bool": "boolean", "float": "number", "datetime": "string"}
    if kind in scalars:
        return {"type": scalars[kind]}
    if kind == "object":
        return _INT_OR_STRING
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        return {"type": "array", "items": _type(found[1])}
    if found := re.fullmatch(r"dict[\[(]str, (.+)[\])]", kind):
        return {"type": "object", "additionalProperties": _type(found[1])}
    return {"$ref": f"#/$defs/{kind}"}


@cache
def _models_by_kind() -> Mapping[str, str]:
    """Models of whole objects by kind; v1 of whatever group, as the client names them."""
    found = {}
    for name, schema in built_in().items():
        kind = re.fullmatch(r"(?:Core|Events)?V1([A-Z]\w+)", name)
        if kind and {"apiVersion", "kind", "metadata"} <= set(schema["properties"]):
            found.setdefault(kind[1], name)
    return {**found, "Event": "CoreV1Event"}


@dataclass
class Schemas:
    """All kinds that can be checked. crds: folders of CustomResourceDefinitions."""

    crds: tuple[Path, ...] = (SHARED_CRDS,)
    _validators: dict[tuple[str, bool], Draft202012Validator] = field(default_factory=dict)

    @cached_property
    def custom(self) -> Mapping[str, Object]:
        """Schemas as published, by `group/version/kind`."""
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found = {}
        for file in sorted(path for folder in self.crds for path in folder.glob("*.yaml")):
            for crd in yaml.load_all(file.read_text(encoding="utf-8"), Loader=loader):
                spec = crd["spec"]
                for version in spec["versions"]:
                    if version["served"]:
                        name = f"{spec['group']}/{version['name']}/{spec['names']['kind']}"
                        found[name] = version["schema"]["openAPIV3Schema"]
        return found

    def problems(self, obj: Object, *, partial: bool = False) -> list[str]:
        """What the schemas refuse of an object, one line each, with where it is. partial: a patch."""
        name = f"{obj.get('apiVersion')}/{obj.get('kind')}"
        validator = self._validator(name, str(obj.get("kind")), partial)
        if validator is None:
            return [f"{name}: no schema is known for this kind"]
        value = _without_nulls(obj) if partial or name not in self.custom else obj
        own = (obj.get("metadata") or {}).get("name") or "?"
        return [
            f"{obj['kind']}/{own}: {error.json_path}: {error.message[:300]}"
            for error in validator.iter_errors(value)
        ]

    def unevaluated(self, obj: Object) -> list[str]:
        """The CEL rules on what this object says, which are not evaluated here."""
        schema = self.custom.get(f"{obj.get('apiVersion')}/{obj.get('kind')}")
        return [] if schema is None else list(_rules(schema, obj, "$"))

    def _validator(self, name: str, kind: str, partial: bool) -> Draft202012Validator | None:
        key = (name, partial)
        if key not in self._validators:
            definitions = built_in()
            if name in self.custom:
                schema = structural(self.custom[name], top=True)
            elif kind in _models_by_kind() and _is_built_in(name):
                schema = {"$ref": f"#/$defs/{_models_by_kind()[kind]}"}
            else:
                return None
            whole = {**schema, "$defs": definitions}
            self._validators[key] = Draft202012Validator(_optional(whole) if partial else whole)
        return self._validators[key]


def _is_built_in(name: str) -> bool:
    group, version, _ = ("", *name.split("/"))[-3:]
    return group in _BUILT_IN_GROUPS and version == "v1"


def _optional(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {
            name: _optional(below)
            for name, below in schema.items()
            if name != "required" or not isinstance(below, list)
        }
    return [_optional(each) for each in schema] if isinstance(schema, list) else schema


def _without_nulls(value: Any) -> Any:
    """As Go decodes it: null is what was not said."""
    if isinstance(value, dict):
        return {name: _without_nulls(below) for name, below in value.items() if below is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _rules(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations") or ():
        yield f"{path}: {rule.get('message') or rule['rule']}"
    if isinstance(value, dict):
        for name, below in value.items():
            inner = schema.get("properties", {}).get(name)
            if inner is None and isinstance(schema.get("additionalProperties"), Mapping):
                inner = schema["additionalProperties"]
            if inner is not None:
                yield from _rules(inner, below, f"{path}.{name}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _rules(schema.get("items") or {}, each, f"{path}[{number}]")
