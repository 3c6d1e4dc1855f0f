"""EndpointSlices: which pods are behind a Service, on which ports, and whether they take traffic."""

from __future__ import annotations

import json

from local.client.informer import Cache, key_of
from local.client.kinds import ENDPOINTSLICES, NODES, PODS, SERVICES, Key, Obj
from local.client.objects import deleting, owner_reference
from local.client.queue import Queue
from local.controllers.pods import ended, ready

MANAGED = "endpointslice.kubernetes.io/managed-by"
SERVICE = "kubernetes.io/service-name"
CONTROLLER = "endpointslice-controller.k8s.io"
LARGEST = 100
"""Endpoints in one slice at most, as in the real controller."""


class EndpointSlices:
    """The EndpointSlice controller."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._queue: Queue[Key] = Queue("endpointslice", self._reconcile)

    async def run(self) -> None:
        await self._cache.sync(SERVICES, PODS, ENDPOINTSLICES, NODES)
        self._cache.of(SERVICES).on_change(lambda _, new: self._queue.add(key_of(new)) if new else None)
        self._cache.of(PODS).on_change(self._pod_changed)
        self._cache.of(ENDPOINTSLICES).on_change(self._slice_changed)
        await self._queue.run()

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        if old and new and _essence(old) == _essence(new):
            return
        for pod in filter(None, (old, new)):
            labels = pod["metadata"].get("labels") or {}
            for service in self._cache.of(SERVICES).items(pod["metadata"]["namespace"]):
                selector = service["spec"].get("selector")
                if selector and selector.items() <= labels.items():
                    self._queue.add(key_of(service))

    def _slice_changed(self, old: Obj | None, new: Obj | None) -> None:
        """Someone else's change to our slice is put right again."""
        obj = new or old
        assert obj is not None
        labels = obj["metadata"].get("labels") or {}
        if labels.get(MANAGED) == CONTROLLER and labels.get(SERVICE) and (new is None or old is not None):
            self._queue.add((obj["metadata"]["namespace"], labels[SERVICE]))

    async def _reconcile(self, key: Key) -> float | None:
        service = self._cache.of(SERVICES).get(*key)
        if service is None or deleting(service) or not service["spec"].get("selector"):
            return None
        if service["spec"].get("type") == "ExternalName":
            return None
        groups = self._endpoints(service)
        existing = [
            each
            for each in self._cache.of(ENDPOINTSLICES).items(key[0])
            if (each["metadata"].get("labels") or {}).get(SERVICE) == key[1]
            and (each["metadata"].get("labels") or {}).get(MANAGED) == CONTROLLER
            and not deleting(each)
        ]
        existing.sort(key=lambda each: each["metadata"]["name"])
        for ports, endpoints in groups:
            same = next(
                (each for each in existing if _ports(each) == ports), existing[0] if existing else None
            )
            content = {"endpoints": endpoints, "ports": ports}
            if same is None:
                await self._cache.create(ENDPOINTSLICES, _new_slice(service, content))
                continue
            existing.remove(same)
            if (same.get("endpoints") or []) != endpoints or _ports(same) != ports:
                await self._cache.patch(ENDPOINTSLICES, same, content)
        for each in existing:
            await self._cache.delete(ENDPOINTSLICES, each)
        return None

    def _endpoints(self, service: Obj) -> list[tuple[list[Obj], list[Obj]]]:
        """(ports, endpoints) a slice: pods that resolve a named port differently go to different slices."""
        selector = service["spec"]["selector"]
        always = bool(service["spec"].get("publishNotReadyAddresses"))
        groups: dict[str, tuple[list[Obj], list[Obj]]] = {}
        for pod in sorted(self._cache.of(PODS).items(service["metadata"]["namespace"]), key=key_of):
            status, meta = pod.get("status") or {}, pod["metadata"]
            if not selector.items() <= (meta.get("labels") or {}).items():
                continue
            if not status.get("podIP") or ended(pod):
                continue
            serving = ready(pod)
            node = self._cache.of(NODES).get("", pod["spec"].get("nodeName", ""))
            zone = ((node or {}).get("metadata") or {}).get("labels", {}).get("topology.kubernetes.io/zone")
            endpoint: Obj = {
                "addresses": [status["podIP"]],
                "conditions": {
                    "ready": always or (serving and not deleting(pod)),
                    "serving": always or serving,
                    "terminating": deleting(pod),
                },
                "nodeName": pod["spec"].get("nodeName"),
                "targetRef": {
                    "kind": "Pod",
                    "namespace": meta["namespace"],
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
                **({"zone": zone} if zone else {}),
            }
            ports = _resolve_ports(service, pod)
            groups.setdefault(json.dumps(ports), (ports, []))[1].append(endpoint)
        if not groups:
            # A Service without pods has one slice without endpoints, which says that it was looked at.
            return [([], [])]
        return [
            (ports, endpoints[start : start + LARGEST])
            for ports, endpoints in groups.values()
            for start in range(0, len(endpoints), LARGEST)
        ]


def _resolve_ports(service: Obj, pod: Obj) -> list[Obj]:
    named = {
        (each.get("name"), each.get("protocol", "TCP")): each["containerPort"]
        for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
        for each in container.get("ports") or []
    }
    result = []
    for port in service["spec"].get("ports") or []:
        protocol = port.get("protocol", "TCP")
        target = port.get("targetPort", port["port"])
        number = named.get((target, protocol)) if isinstance(target, str) else target
        if not number:
            continue
        entry: Obj = {"name": port.get("name", ""), "port": number, "protocol": protocol}
        if port.get("appProtocol"):
            entry["appProtocol"] = port["appProtocol"]
        result.append(entry)
    return result


def _ports(one: Obj) -> list[Obj]:
    names = ("name", "port", "protocol", "appProtocol")
    return [
        {name: each[name] for name in names if each.get(name) is not None} for each in one.get("ports") or []
    ]


def _new_slice(service: Obj, content: Obj) -> Obj:
    meta = service["metadata"]
    labels = {
        key: value
        for key, value in (meta.get("labels") or {}).items()
        if key != "service.kubernetes.io/headless"
    }
    if service["spec"].get("clusterIP") == "None":
        labels["service.kubernetes.io/headless"] = ""
    return {
        "metadata": {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": {**labels, SERVICE: meta["name"], MANAGED: CONTROLLER},
            "ownerReferences": [owner_reference(SERVICES, service)],
        },
        "addressType": "IPv4",
        **content,
    }


def _essence(pod: Obj) -> tuple[object, ...]:
    status = pod.get("status") or {}
    return (
        pod["metadata"].get("labels"),
        status.get("podIP"),
        ready(pod),
        deleting(pod),
        ended(pod),
        pod["spec"].get("nodeName"),
    )
