"""Where pods of the cluster reach the servers of a release."""

from __future__ import annotations

from trainyard.errors import ClusterUnavailable
from trainyard.kube.cluster import Cluster
from trainyard.kube.servers import PORT
from trainyard.settings import Settings


def urls_of(cluster: Cluster, settings: Settings, release_id: str) -> list[str]:
    """Base URLs of a release's Service. Raises ClusterUnavailable where it has no ready endpoint.

    `dns` gives the Service's own name; `endpoints` its ready addresses, for clusters without DNS.
    """
    namespace = settings.serving_namespace
    ready = servers_of(cluster, settings, release_id)
    if not ready:
        raise ClusterUnavailable(f"Service {namespace}/{release_id} has no ready endpoint")
    if settings.service_addressing == "dns":
        return [f"http://{release_id}.{namespace}.svc:{PORT}"]
    return ready


def servers_of(cluster: Cluster, settings: Settings, release_id: str) -> list[str]:
    """Base URLs of a release's ready servers, one each: a Service would give a server's own figures of
    whichever it picks."""
    namespace = settings.serving_namespace
    slices = cluster.list("EndpointSlice", namespace, labels=f"kubernetes.io/service-name={release_id}")
    return sorted(
        f"http://{address}:{port['port']}"
        for item in slices
        for port in item.get("ports") or []
        for endpoint in item.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready", True)
        for address in endpoint.get("addresses") or []
    )


def gateway_url(settings: Settings, model: str) -> str:
    """Base URL of a model behind the gateway, as clients use it (then /v1/chat/completions)."""
    return f"{settings.gateway_url.rstrip('/')}/{model}"
