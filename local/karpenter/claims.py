"""NodeClaim objects: made from a draft, and their conditions in Karpenter's words."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from local.client.instances import INSTANCE_TYPES
from local.client.kinds import NODEPOOLS, Obj
from local.client.objects import condition, owner_reference, with_condition
from local.client.quantity import format_resources
from local.karpenter.provisioning import Draft

FAULTS = "local.trainyard.dev/faults"
TERMINATION = "karpenter.sh/termination"
NODEPOOL = "karpenter.sh/nodepool"


def faults_of(obj: Obj) -> dict[str, Any]:
    """The fault knobs of a NodePool or NodeClaim; an annotation that is no JSON object counts as none."""
    try:
        found = json.loads((obj["metadata"].get("annotations") or {}).get(FAULTS) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def claim_from(draft: Draft) -> Obj:
    """The NodeClaim that buys a node for the draft's pods."""
    pool = draft.pool
    name, template = pool["metadata"]["name"], pool["spec"]["template"]
    spec = template["spec"]
    own = [
        each for each in spec.get("requirements") or [] if each["key"] != "node.kubernetes.io/instance-type"
    ]
    keys = {each["key"] for each in own}
    requirements = [
        *own,
        *(
            each.to_object()
            for each in draft.extra
            if each.key not in keys and each.key not in ("node.kubernetes.io/instance-type", NODEPOOL)
        ),
        {"key": NODEPOOL, "operator": "In", "values": [name]},
        {
            "key": "node.kubernetes.io/instance-type",
            "operator": "In",
            "values": [kind.name for kind in draft.types],
        },
    ]
    meta = template.get("metadata") or {}
    annotations = {
        **(meta.get("annotations") or {}),
        "karpenter.sh/nodepool-hash": hashlib.sha256(
            json.dumps(template, sort_keys=True).encode()
        ).hexdigest()[:19],
        "karpenter.sh/nodepool-hash-version": "v3",
    }
    faults = (pool["metadata"].get("annotations") or {}).get(FAULTS)
    if faults:
        # The claim carries the knobs, so that the kubelet sees them too.
        annotations[FAULTS] = faults
    return {
        "metadata": {
            "generateName": f"{name}-",
            "labels": {**(meta.get("labels") or {}), NODEPOOL: name},
            "annotations": annotations,
            "finalizers": [TERMINATION],
            "ownerReferences": [owner_reference(NODEPOOLS, pool, controller=False)],
        },
        "spec": {
            "nodeClassRef": spec["nodeClassRef"],
            "requirements": requirements,
            "resources": {"requests": format_resources(draft.requests)},
            **{
                key: spec[key]
                for key in ("taints", "startupTaints", "expireAfter", "terminationGracePeriod")
                if spec.get(key)
            },
        },
    }


def types_of(claim: Obj) -> list[str]:
    """Instance types that the claim allows, cheapest first."""
    for each in claim["spec"]["requirements"]:
        if each["key"] == "node.kubernetes.io/instance-type" and each["operator"] == "In":
            return [name for name in INSTANCE_TYPES if name in each["values"]]
    return list(INSTANCE_TYPES)


def set_condition(claim: Obj, kind: str, status: str, reason: str = "", message: str = "") -> list[Obj]:
    """The claim's conditions with this one, and `Ready` derived from the three steps."""
    generation = claim["metadata"].get("generation", 1)

    def entry(kind: str, status: str, reason: str, message: str) -> Obj:
        return {
            "type": kind,
            "status": status,
            "reason": reason or kind,
            "message": message,
            "observedGeneration": generation,
        }

    conditions = with_condition(
        list((claim.get("status") or {}).get("conditions") or []), entry(kind, status, reason, message)
    )
    holder = {"status": {"conditions": conditions}}
    steps = {
        each: (condition(holder, each) or {"status": "Unknown"})
        for each in ("Launched", "Registered", "Initialized")
    }
    open_steps = [each for each, found in steps.items() if found["status"] != "True"]
    for each in open_steps:
        if condition(holder, each) is None:
            conditions = with_condition(
                conditions,
                entry(each, "Unknown", "AwaitingReconciliation", "object is awaiting reconciliation"),
            )
    if open_steps:
        first = steps[open_steps[0]]
        ready = entry(
            "Ready",
            first["status"],
            "UnhealthyDependents" if first["status"] == "False" else "ReconcilingDependents",
            ", ".join(f"{each}={steps[each]['status']}" for each in open_steps),
        )
    else:
        ready = entry("Ready", "True", "Ready", "")
    return with_condition(conditions, ready)
