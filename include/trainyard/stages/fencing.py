"""The route's fence: a new holder of a model's lease writes its token there before it does anything else.

Without it, a holder that was paused between its last look and its write would still find the version that it
had read, and its compare-and-swap would move the traffic of a model that is not its own any more.
"""

from __future__ import annotations

from trainyard.errors import ClusterUnavailable, Conflict
from trainyard.kube.cluster import Cluster, written_token

_TRIES = 5


def fence_route(cluster: Cluster, namespace: str, model: str, token: int) -> None:
    """Raises ClusterUnavailable. No route is fine: there is no traffic yet."""
    for _ in range(_TRIES):
        live = cluster.find("HTTPRoute", model, namespace)
        if live is None or written_token(live) >= token:
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
