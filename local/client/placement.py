"""Does a pod fit on a node? Requests, selectors, affinity, taints: the scheduler's filters, pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from local.client.kinds import Obj
from local.client.objects import matches_expression
from local.client.quantity import Resources, add_resources, parse_quantity, parse_resources

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


def pod_requests(pod: Obj) -> Resources:
    """What a pod asks of a node: the larger of its containers' sum and its init containers' peak, plus
    one pod.

    Sidecars (init containers with restartPolicy Always) count beside the containers, and beside every
    init container
    that starts after them.
    """
    spec = pod["spec"]
    running = add_resources(container_requests(each) for each in spec.get("containers") or [])
    sidecars: Resources = {}
    peak: Resources = {}
    for each in spec.get("initContainers") or []:
        own = container_requests(each)
        if each.get("restartPolicy") == "Always":
            sidecars = add_resources([sidecars, own])
            candidate = sidecars
        else:
            candidate = add_resources([sidecars, own])
        peak = _larger(peak, candidate)
    total = _larger(add_resources([running, sidecars]), peak)
    total = add_resources([total, parse_resources(spec.get("overhead"))])
    total["pods"] = Decimal(1)
    return total


def container_requests(container: Obj) -> Resources:
    """Requests of one container; a limit without a request is the request (as the API server defaults it)."""
    resources = container.get("resources") or {}
    return parse_resources({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _larger(one: Mapping[str, Decimal], other: Mapping[str, Decimal]) -> Resources:
    return {name: max(one.get(name, Decimal(0)), other.get(name, Decimal(0))) for name in {*one, *other}}


def tolerates(tolerations: Iterable[Obj], taint: Obj) -> bool:
    """Does one of the tolerations cover the taint?"""
    for each in tolerations:
        if each.get("effect") and each["effect"] != taint["effect"]:
            continue
        operator = each.get("operator") or "Equal"
        if not each.get("key"):
            if operator == "Exists":
                return True
            continue
        if each["key"] != taint["key"]:
            continue
        if operator == "Exists" or (each.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def untolerated(
    pod: Obj, taints: Iterable[Obj], effects: tuple[str, ...] = ("NoSchedule", "NoExecute")
) -> Obj | None:
    """The first taint that keeps the pod away, or None."""
    tolerations = pod["spec"].get("tolerations") or []
    for taint in taints:
        if taint["effect"] in effects and not tolerates(tolerations, taint):
            return taint
    return None


def selects(pod: Obj, labels: Mapping[str, str], name: str = "") -> bool:
    """Do nodeSelector and the required node affinity accept a node with these labels?"""
    wanted = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    terms = affinity_terms(pod)
    if terms is None:
        return True
    return any(_term_accepts(term, labels, name) for term in terms)


def affinity_terms(pod: Obj) -> list[Obj] | None:
    """Required node selector terms (any one must hold), None where there are none."""
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity")) or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else list(required.get("nodeSelectorTerms") or [])


def _term_accepts(term: Obj, labels: Mapping[str, str], name: str) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    return all(matches_expression(each, labels) for each in expressions) and all(
        matches_expression(each, {"metadata.name": name}) for each in fields
    )


@dataclass(frozen=True)
class Refusal:
    """Why one node does not take a pod. `helpful`: evicting others could change that."""

    reasons: tuple[str, ...]
    helpful: bool


def node_refusal(pod: Obj, node: Obj, used: Resources) -> Refusal | None:
    """The first filter that refuses, in the scheduler's order; None when the pod fits. `used` = sum of
    pod_requests.
    """
    spec, labels = node.get("spec") or {}, node["metadata"].get("labels") or {}
    name = node["metadata"]["name"]
    tolerations = pod["spec"].get("tolerations") or []
    cordon = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    if spec.get("unschedulable") and not tolerates(tolerations, cordon):
        return Refusal(("node(s) were unschedulable",), False)
    taint = untolerated(pod, spec.get("taints") or [])
    if taint:
        return Refusal(("node(s) had untolerated taint(s)",), False)
    if not selects(pod, labels, name):
        return Refusal(("node(s) didn't match Pod's node affinity/selector",), False)
    allocatable = parse_resources((node.get("status") or {}).get("allocatable"))
    requests = pod_requests(pod)
    reasons, helpful = [], True
    for resource in sorted(
        requests, key=lambda each: (each != "pods", each != "cpu", each != "memory", each)
    ):
        need, have = requests[resource], allocatable.get(resource, Decimal(0))
        if need > 0 and used.get(resource, Decimal(0)) + need > have:
            reasons.append("Too many pods" if resource == "pods" else f"Insufficient {resource}")
            helpful = helpful and need <= have
    return Refusal(tuple(reasons), helpful) if reasons else None


def refusal_message(refusals: Mapping[str, Refusal]) -> str:
    """The scheduler's sentence: reasons with the number of nodes each, then what preemption would do."""
    total = len(refusals)
    if not total:
        return "no nodes available to schedule pods"
    counts: dict[str, int] = {}
    preemption: dict[str, int] = {}
    for refusal in refusals.values():
        for reason in refusal.reasons:
            counts[reason] = counts.get(reason, 0) + 1
        word = NO_VICTIMS if refusal.helpful else NOT_HELPFUL
        preemption[word] = preemption.get(word, 0) + 1
    # Taints, affinity and "unschedulable" carry their "node(s)" already, so the count alone stands in front.
    reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
    tail = ", ".join(sorted(f"{count} {word}" for word, count in preemption.items()))
    head = f"0/{total} nodes are available"
    return f"{head}: {reasons}. preemption: {head}: {tail}."


def quantity_of(resources: Mapping[str, str] | None, name: str) -> Decimal:
    return parse_quantity((resources or {}).get(name, "0"))
