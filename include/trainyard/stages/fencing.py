"""The route's fence: a new holder of a model's lease writes its token there before it does anything else.

Without it, a holder that was paused between its last look and its write would still find the version that it
had read, and its compare-and-swap would move the traffic of a model that is not its own any more.

Before a model's first release there is no route, and no version to compare: a paused holder that saw none
would create one, and give its own release all traffic. So the first grant makes one, attached to no gateway;
and a roll back that leaves no stable release detaches the route instead of deleting it.
"""

from __future__ import annotations

from trainyard.errors import ClusterUnavailable, Conflict, NotFound
from trainyard.kube.cluster import Cluster, written_token
from trainyard.kube.traffic import route_manifest

_TRIES = 5


def fence_route(cluster: Cluster, namespace: str, model: str, token: int) -> None:
    """Raises ClusterUnavailable. A namespace that does not exist is fine: no traffic can be there."""
    for _ in range(_TRIES):
        live = cluster.find("HTTPRoute", model, namespace)
        if live is None:
            try:
                cluster.create(route_manifest(model, namespace, "", "", {}, token))
            except NotFound:
                return
            except Conflict:
                continue
            return
        if written_token(live) >= token:
            return
        change = {
            "metadata": {
                "resourceVersion": live["metadata"]["resourceVersion"],
                "annotations": {"trainyard.dev/lease-token": str(token)},
            }
        }
        try:
            cluster.merge("HTTPRoute", model, namespace, change)
        except Conflict:
            continue
        return
    raise ClusterUnavailable(
        f"HTTPRoute {namespace}/{model} kept changing under {_TRIES} tries to raise its fence"
    )
