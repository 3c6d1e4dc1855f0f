"""Does the Gateway take traffic, and does it take routes?"""

from __future__ import annotations

from collections.abc import Iterator

from trainyard.doctor.findings import Finding, Part
from trainyard.doctor.objects import APPLY
from trainyard.kube.capacity import conditions
from trainyard.kube.cluster import Cluster, Object
from trainyard.kube.traffic import accepted
from trainyard.settings import Settings

BASE_ROUTE = "trainyard.base"
_GATEWAY = Part("gateway")


def gateway(cluster: Cluster, settings: Settings) -> Iterator[Finding]:
    namespace, name = settings.gateway_namespace, settings.gateway_name
    about, found = f"Gateway {namespace}/{name}", cluster.find("Gateway", name, namespace)
    if found is None:
        yield _GATEWAY.failed(
            about,
            "it does not exist",
            f"{APPLY}, or set TRAINYARD_GATEWAY_NAME and TRAINYARD_GATEWAY_NAMESPACE.",
        )
        return
    yield from _class(cluster, str(found["spec"].get("gatewayClassName")))
    yield from _taken(found, about)
    yield from _listeners(found, about)
    yield from _base_route(cluster, settings)


def _class(cluster: Cluster, name: str) -> Iterator[Finding]:
    about, found = f"GatewayClass {name}", cluster.find("GatewayClass", name)
    if found is None:
        yield _GATEWAY.failed(
            about,
            "it does not exist, and the Gateway is of this class",
            "Install an implementation of the Gateway API, or name its class in the eks overlay.",
        )
        return
    state = conditions(found).get("Accepted", {})
    if state.get("status") == "True":
        yield _GATEWAY.ok(about, f"accepted by {found['spec'].get('controllerName')}")
    else:
        yield _GATEWAY.failed(
            about,
            f"no controller has accepted it{_said(state)}",
            f"Is {found['spec'].get('controllerName')} running, with its Gateway API provider switched on?",
        )


def _taken(found: Object, about: str) -> Iterator[Finding]:
    state = conditions(found).get("Programmed", {})
    if state.get("status") != "True":
        yield _GATEWAY.failed(
            about,
            f"not programmed{_said(state)}",
            "See the log of the class's controller: often the listener's port or address.",
        )
        return
    addresses = [str(each.get("value")) for each in (found.get("status") or {}).get("addresses") or []]
    if addresses:
        yield _GATEWAY.ok(about, f"programmed, at {', '.join(addresses)}")
    else:
        # Some implementations never say one: their Service does.
        yield _GATEWAY.ok(about, "programmed; it names no address, see its controller's Service")


def _listeners(found: Object, about: str) -> Iterator[Finding]:
    states = {each.get("name"): each for each in (found.get("status") or {}).get("listeners") or []}
    for listener in found["spec"].get("listeners") or []:
        state = states.get(listener["name"])
        where = f"{about}, listener {listener['name']}"
        if state is None:
            yield _GATEWAY.warning(where, "its controller says nothing of it", "See the controller's log.")
            continue
        known = {each["type"]: each for each in state.get("conditions") or []}
        bad = [
            f"{kind}{_said(known[kind])}"
            for kind in ("Accepted", "Programmed", "ResolvedRefs")
            if kind in known and known[kind]["status"] != "True"
        ]
        if known.get("Conflicted", {}).get("status") == "True":
            bad.append(f"Conflicted{_said(known['Conflicted'])}")
        if bad:
            yield _GATEWAY.failed(
                where, "; ".join(bad), "Mend the listener in the overlay: port, protocol, TLS."
            )
        else:
            yield _GATEWAY.ok(where, f"port {listener['port']}, {state.get('attachedRoutes', 0)} routes")


def _base_route(cluster: Cluster, settings: Settings) -> Iterator[Finding]:
    about = f"HTTPRoute {settings.serving_namespace}/{BASE_ROUTE}"
    route = cluster.find("HTTPRoute", BASE_ROUTE, settings.serving_namespace)
    if route is None:
        yield _GATEWAY.warning(
            about, "it does not exist: nothing shows yet that routes are taken", f"{APPLY} makes it."
        )
        return
    taken, said = accepted(route)
    if taken:
        yield _GATEWAY.ok(about, "accepted: the Gateway takes routes of this namespace")
    else:
        yield _GATEWAY.failed(
            about,
            f"not accepted: {said}",
            "Let the Gateway's listener allow routes from the serving namespace.",
        )


def _said(state: Object) -> str:
    reason, message = state.get("reason"), state.get("message")
    words = ": ".join(str(each) for each in (reason, message) if each)
    return f" ({words})" if words else ""
