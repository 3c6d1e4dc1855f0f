"""The HTTPRoute of a model: which release gets which share of the traffic."""

from __future__ import annotations

from collections.abc import Mapping

from trainyard.errors import ClusterUnavailable, Conflict, PermanentError
from trainyard.kube.cluster import Cluster, Object, guard_token, written_token
from trainyard.kube.servers import PORT

_TRIES = 5


def route_manifest(
    model: str,
    namespace: str,
    gateway: str,
    gateway_namespace: str,
    weights: Mapping[str, int],
    token: int,
) -> Object:
    """Requests below /<model> go to the releases by weight, with the prefix taken off.

    weights: percent by release id; the id is also the Service's name. Weight 0 keeps a backend known but
    idle. None at all: the route is attached to no gateway and leads nowhere; it holds the token, so that
    there is always something to swap.
    """
    rule: Object = {"matches": [{"path": {"type": "PathPrefix", "value": f"/{model}"}}]}
    if weights:
        rule["filters"] = [
            {
                "type": "URLRewrite",
                "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
            }
        ]
        rule["backendRefs"] = backends(weights)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": model,
            "namespace": namespace,
            "labels": {"trainyard.dev/model": model, "app.kubernetes.io/managed-by": "trainyard"},
            "annotations": {"trainyard.dev/lease-token": str(token)},
        },
        "spec": {
            "parentRefs": [{"name": gateway, "namespace": gateway_namespace}] if weights else [],
            "rules": [rule],
        },
    }


def backends(weights: Mapping[str, int]) -> list[Object]:
    return [
        {"group": "", "kind": "Service", "name": release, "port": PORT, "weight": weight}
        for release, weight in sorted(weights.items())
    ]


def weights_of(route: Object | None) -> dict[str, int]:
    """Percent by release id, as the live route says it."""
    if route is None:
        return {}
    rules = route.get("spec", {}).get("rules") or []
    return {ref["name"]: int(ref.get("weight", 1)) for rule in rules for ref in rule.get("backendRefs") or []}


def accepted(route: Object) -> tuple[bool, str]:
    """Whether the gateway has taken this generation over, and what it says if it has not."""
    generation = route["metadata"].get("generation")
    for parent in (route.get("status") or {}).get("parents") or []:
        conditions = {condition["type"]: condition for condition in parent.get("conditions") or []}
        taken, refs = conditions.get("Accepted"), conditions.get("ResolvedRefs")
        if not taken or taken.get("observedGeneration", generation) != generation:
            continue
        if taken["status"] != "True":
            return False, f"Accepted={taken['status']}: {taken.get('reason')}: {taken.get('message')}"
        if refs and refs["status"] != "True":
            return False, f"ResolvedRefs={refs['status']}: {refs.get('reason')}: {refs.get('message')}"
        return True, ""
    return False, "no gateway has taken the route's newest generation over yet"


def set_weights(
    cluster: Cluster,
    *,
    model: str,
    namespace: str,
    gateway: str,
    gateway_namespace: str,
    weights: Mapping[str, int],
    token: int,
) -> Object:
    """Moves the weights by compare-and-swap. Raises LeaseLost when a newer holder wrote the route.

    The live route is read again before each try. Setting what is set already changes nothing but the token:
    from then on, who holds an older one can change the route no more.
    """
    if weights and sum(weights.values()) != 100:
        raise PermanentError(f"weights must add up to 100, got {dict(weights)}")
    wanted = route_manifest(model, namespace, gateway, gateway_namespace, weights, token)
    for _ in range(_TRIES):
        live = cluster.find("HTTPRoute", model, namespace)
        if live is None:
            try:
                return cluster.create(wanted)
            except Conflict:
                continue
        guard_token(live, token)
        if weights_of(live) == dict(weights) and written_token(live) == token:
            return live
        change = {
            "metadata": {
                "resourceVersion": live["metadata"]["resourceVersion"],
                "annotations": wanted["metadata"]["annotations"],
            },
            "spec": wanted["spec"],
        }
        try:
            return cluster.merge("HTTPRoute", model, namespace, change)
        except Conflict:
            continue
    raise ClusterUnavailable(
        f"HTTPRoute {namespace}/{model} kept changing under {_TRIES} tries to set weights"
    )
