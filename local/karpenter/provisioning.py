"""From pending pods to NodeClaims to be made: pure simulation over pools, claims in flight and existing
nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from local.client.instances import INSTANCE_TYPES, NEURONCORE, InstanceType
from local.client.kinds import Obj
from local.client.objects import is_true
from local.client.placement import node_refusal, pod_requests, untolerated
from local.client.quantity import Resources, add_resources, format_resources, parse_resources
from local.karpenter.requirements import Requirement, accepts_all, choice, pod_requirements, pool_requirements

CAPACITY_TYPES = ("reserved", "on-demand", "spot")
DEFAULT_TYPE = "on-demand"
OVERHEAD = 'daemonset overhead={"pods":"0"}'


@dataclass
class Draft:
    """A node that is to be bought, or is being bought: its pool, the types that fit so far, the pods meant
    for it.
    """

    pool: Obj
    types: list[InstanceType]
    zones: list[str]
    capacity_types: list[str]
    pods: list[Obj] = field(default_factory=list)
    requests: Resources = field(default_factory=dict)
    claim: str = ""
    extra: list[Requirement] = field(default_factory=list)

    def labels(self, kind: InstanceType) -> dict[str, str]:
        """The labels that a node of this type would have."""
        template = (self.pool["spec"]["template"].get("metadata") or {}).get("labels") or {}
        return {
            **template,
            **kind.labels(),
            "karpenter.sh/nodepool": self.pool["metadata"]["name"],
            "karpenter.sh/capacity-type": self.capacity_types[0],
            "topology.kubernetes.io/zone": self.zones[0],
            "topology.kubernetes.io/region": self.zones[0][:-1],
        }


@dataclass
class Plan:
    """What to do: drafts to buy, nominations (pod -> claim or node name), and why pods stay pending."""

    buy: list[Draft] = field(default_factory=list)
    nominated: list[tuple[Obj, str, str]] = field(default_factory=list)
    refused: list[tuple[Obj, str]] = field(default_factory=list)


def pool_ready(pool: Obj) -> bool:
    return is_true(pool, "Ready") and not pool["metadata"].get("deletionTimestamp")


def open_draft(pool: Obj, pod: Obj) -> Draft | str:
    """A new draft of the pool with this pod, or why the pool does not take it (Karpenter's words)."""
    name = pool["metadata"]["name"]
    spec = pool["spec"]["template"]["spec"]
    taint = untolerated(pod, spec.get("taints") or [])
    if taint:
        value = f"={taint['value']}" if taint.get("value") else ""
        shown = f"{taint['key']}{value}:{taint['effect']}"
        return f'incompatible with nodepool "{name}", {OVERHEAD}, did not tolerate taint (taint={shown})'
    requirements = pool_requirements(pool)
    for alternative in pod_requirements(pod):
        draft = _compatible(pool, [*requirements, *alternative])
        if draft:
            draft.extra = alternative
            if fits(draft, pod):
                return draft
            wants = format_resources(pod_requests(pod))
            asked = ", ".join(f'"{key}":"{value}"' for key, value in wants.items())
            return (
                f'incompatible with nodepool "{name}", {OVERHEAD}, no instance type has enough '
                f"resources, requirements={_shown(requirements)}, resources={{{asked}}}"
            )
    alternative = pod_requirements(pod)[0]
    broken = _broken(requirements, alternative)
    return f'incompatible with nodepool "{name}", {OVERHEAD}, incompatible requirements, {broken}'


def _compatible(pool: Obj, requirements: list[Requirement]) -> Draft | None:
    zones = choice(requirements, "topology.kubernetes.io/zone", ("us-east-2b", "us-east-2a", "us-east-2c"))
    kinds = choice(requirements, "karpenter.sh/capacity-type", CAPACITY_TYPES)
    # Reserved capacity is only there for those who ask for it by name; on-demand is the default as in
    # Karpenter.
    asked = any(each.key == "karpenter.sh/capacity-type" for each in requirements)
    if not asked:
        kinds = [DEFAULT_TYPE]
    kinds.sort(key=lambda each: ("reserved", "spot", "on-demand").index(each))
    if not zones or not kinds:
        return None
    draft = Draft(pool, [], zones, kinds)
    draft.types = [
        kind for kind in INSTANCE_TYPES.values() if accepts_all(requirements, draft.labels(kind)) is None
    ]
    return draft if draft.types else None


def _broken(pool: list[Requirement], pod: list[Requirement]) -> str:
    for each in pod:
        mine = [other for other in pool if other.key == each.key]
        if not mine:
            known = each.key in Draft(
                {"metadata": {"name": ""}, "spec": {"template": {}}}, [], ["us-east-2b"], ["spot"]
            ).labels(next(iter(INSTANCE_TYPES.values())))
            if not known:
                return f'label "{each.key}" does not have known values'
        elif not any(other.accepts({each.key: value}) for other in mine for value in each.values):
            return f"key {each.key}, {each} not in {mine[0]}"
    return f"no instance type met all requirements, requirements={_shown([*pool, *pod])}"


def _shown(requirements: list[Requirement]) -> str:
    return ", ".join(sorted(map(str, requirements)))


def fits(draft: Draft, pod: Obj) -> bool:
    """Add the pod to the draft if some type of it still holds everything; the types are narrowed to those
    that do.
    """
    total = add_resources([draft.requests, pod_requests(pod)])
    types = [kind for kind in draft.types if _holds(kind, total)]
    if not types:
        return False
    draft.types = types
    draft.requests = total
    draft.pods.append(pod)
    return True


def _holds(kind: InstanceType, requests: Resources) -> bool:
    have = kind.allocatable()
    return all(need <= have.get(name, Decimal(0)) for name, need in requests.items())


def joins(draft: Draft, pod: Obj) -> bool:
    """Can the pod go onto a node that is being bought? Adds it when it can."""
    spec = draft.pool["spec"]["template"]["spec"]
    if untolerated(pod, spec.get("taints") or []):
        return False
    for alternative in pod_requirements(pod):
        narrowed = [kind for kind in draft.types if accepts_all(alternative, draft.labels(kind)) is None]
        if narrowed:
            before, draft.types = draft.types, narrowed
            if fits(draft, pod):
                return True
            draft.types = before
    return False


def within_limits(pool: Obj, spent: Resources, kind: InstanceType) -> bool:
    """May the pool buy one more of this type?"""
    limits = parse_resources(pool["spec"].get("limits"))
    capacity = {name: value for name, value in kind.capacity().items() if name != NEURONCORE}
    return all(
        spent.get(name, Decimal(0)) + capacity.get(name, Decimal(0)) <= limit
        for name, limit in limits.items()
    )


def plan(
    pods: list[Obj],
    pools: list[Obj],
    flying: list[Draft],
    nodes: list[Obj],
    used: dict[str, Resources],
    spent: dict[str, Resources],
) -> Plan:
    """Decide for all pending pods at once. `used` per node, `spent` per pool (claims already made)."""
    result = Plan()
    used = {name: dict(value) for name, value in used.items()}
    spent = {name: dict(value) for name, value in spent.items()}
    # Heavier pools first, as in Karpenter; names break ties.
    ready = sorted(
        filter(pool_ready, pools), key=lambda each: (-each["spec"].get("weight", 0), each["metadata"]["name"])
    )
    for pod in pods:
        node = next(
            (
                each
                for each in nodes
                if node_refusal(pod, each, used.get(each["metadata"]["name"], {})) is None
            ),
            None,
        )
        if node is not None:
            # The scheduler will see to it; nothing has to be bought.
            name = node["metadata"]["name"]
            used[name] = add_resources([used.get(name, {}), pod_requests(pod)])
            continue
        draft = next((each for each in [*flying, *result.buy] if joins(each, pod)), None)
        if draft is not None:
            if draft.claim:
                result.nominated.append((pod, "nodeclaim", draft.claim))
            continue
        reasons = []
        for pool in ready:
            opened = open_draft(pool, pod)
            if isinstance(opened, str):
                reasons.append(opened)
                continue
            name = pool["metadata"]["name"]
            affordable = [kind for kind in opened.types if within_limits(pool, spent.get(name, {}), kind)]
            if not affordable:
                reasons.append(f'all available instance types exceed limits for nodepool: "{name}"')
                continue
            opened.types = affordable
            result.buy.append(opened)
            # Limits count the cheapest type, which is what gets launched.
            spent[name] = add_resources([spent.get(name, {}), affordable[0].capacity()])
            break
        else:
            if reasons:
                result.refused.append((pod, "Failed to schedule pod, " + "; ".join(reasons)))
    return result
