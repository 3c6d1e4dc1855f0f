"""May a NodePool ever make a node of this instance type, zone and capacity type? Karpenter's requirements."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from trainyard.kube.cluster import Object
from trainyard.neuron.instances import INSTANCES

INSTANCE_TYPE = "node.kubernetes.io/instance-type"
ZONE = "topology.kubernetes.io/zone"
CAPACITY_TYPE = "karpenter.sh/capacity-type"
NODEPOOL = "karpenter.sh/nodepool"
# Karpenter's own preference: what is paid already, then what is cheap, then what is sure.
CAPACITY_TYPES = ("reserved", "spot", "on-demand")
_AWS = "karpenter.k8s.aws/instance-"
_NAME = re.compile(r"(?P<family>(?P<category>[a-z]+)(?P<generation>\d+)[a-z0-9-]*)\.(?P<size>.+)")


def requirements_of(nodepool: Object) -> list[Object]:
    """The NodePool's requirements; labels of its template bind like requirements."""
    template = (nodepool.get("spec") or {}).get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    return [
        *((template.get("spec") or {}).get("requirements") or []),
        *({"key": key, "operator": "In", "values": [value]} for key, value in labels.items()),
    ]


def labels_of(instance_type: str) -> dict[str, str]:
    """Labels that every node of an instance type has, as far as its name and our table tell."""
    labels = {INSTANCE_TYPE: instance_type, "kubernetes.io/os": "linux"}
    name = _NAME.fullmatch(instance_type)
    if name is not None:
        labels |= {_AWS + key: name[key] for key in ("family", "category", "generation", "size")}
    known = INSTANCES.get(instance_type)
    if known is not None:
        labels |= {
            "kubernetes.io/arch": "amd64",
            _AWS + "cpu": str(known.vcpus),
            _AWS + "memory": str(known.memory_gib * 1024),
            _AWS + "accelerator-count": str(known.chips),
            _AWS + "accelerator-manufacturer": "aws",
        }
    return labels


def refusal(requirements: Iterable[Object], labels: Mapping[str, str]) -> str | None:
    """The first requirement that these labels break, in words; None where none does.

    A requirement on a label that is not among them is not judged: only Karpenter knows.
    """
    for item in requirements:
        value = labels.get(item["key"])
        if value is not None and not _meets(value, item["operator"], item.get("values") or []):
            wanted = " ".join([item["operator"], ", ".join(item.get("values") or [])]).strip()
            return f"{item['key']} is {value}, the NodePool wants {wanted}"
    return None


def permitted(requirements: Sequence[Object], key: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """Those candidates for one label that the requirements let through, in their order."""
    return tuple(each for each in candidates if refusal(requirements, {key: each}) is None)


def _meets(value: str, operator: str, values: Sequence[str]) -> bool:
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    if operator == "Exists":
        return True
    if operator == "DoesNotExist":
        return False
    if not (value.isdecimal() and values and str(values[0]).isdecimal()):
        return False
    found, bound = int(value), int(values[0])
    return {
        "Gt": found > bound,
        "Lt": found < bound,
        "Gte": found >= bound,
        "Lte": found <= bound,
    }.get(operator, True)
