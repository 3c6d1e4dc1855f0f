"""Requirements on node labels: what a pool offers, what a pod asks for, and whether the two meet. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from local.client.kinds import Obj
from local.client.objects import matches_expression
from local.client.placement import affinity_terms

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


@dataclass(frozen=True)
class Requirement:
    """`key operator values`, as in a node selector."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    @classmethod
    def parse(cls, entry: Mapping[str, object]) -> Requirement:
        values = entry.get("values") or []
        assert isinstance(values, list)
        return cls(str(entry["key"]), str(entry["operator"]), tuple(map(str, values)))

    def accepts(self, labels: Mapping[str, str]) -> bool:
        return matches_expression(
            {"key": self.key, "operator": self.operator, "values": list(self.values)}, labels
        )

    def to_object(self) -> Obj:
        return {
            "key": self.key,
            "operator": self.operator,
            **({"values": list(self.values)} if self.values else {}),
        }

    def __str__(self) -> str:
        values = f" [{' '.join(self.values)}]" if self.values else ""
        return f"{self.key} {self.operator}{values}"


def pool_requirements(pool: Obj) -> list[Requirement]:
    """What every node of the pool is: its requirements, and its template's labels."""
    template = pool["spec"]["template"]
    result = [Requirement.parse(each) for each in template["spec"].get("requirements") or []]
    labels = (template.get("metadata") or {}).get("labels") or {}
    result += [Requirement(key, "In", (value,)) for key, value in sorted(labels.items())]
    result.append(Requirement("karpenter.sh/nodepool", "In", (pool["metadata"]["name"],)))
    return result


def pod_requirements(pod: Obj) -> list[list[Requirement]]:
    """Alternatives (any one will do), each a list of requirements that must all hold."""
    base = [
        Requirement(key, "In", (value,))
        for key, value in sorted((pod["spec"].get("nodeSelector") or {}).items())
    ]
    terms = affinity_terms(pod)
    if terms is None:
        return [base]
    return [
        [*base, *(Requirement.parse(each) for each in term.get("matchExpressions") or [])] for term in terms
    ]


def accepts_all(requirements: Iterable[Requirement], labels: Mapping[str, str]) -> Requirement | None:
    """The first requirement that these labels do not meet, None when all are met."""
    for each in requirements:
        if not each.accepts(labels):
            return each
    return None


def choice(requirements: Iterable[Requirement], key: str, offered: Iterable[str]) -> list[str]:
    """Which of the offered values of one label all requirements on it accept."""
    concerned = [each for each in requirements if each.key == key]
    return [value for value in offered if all(each.accepts({key: value}) for each in concerned)]
