"""Whose Neuron devices are asked, and by which source: what NeuronHealthOperator and its trigger share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainyard.kube.cluster import Cluster
    from trainyard.kube.looks import Look
    from trainyard.neuron.readings import Reader
    from trainyard.neuron.window import Window

SOURCES = ("monitor", "exporter", "cloudwatch")


@dataclass(frozen=True)
class Target:
    """One pod's or node's devices.

    source: `monitor` (of a pod, or of the monitor DaemonSet's pod on a node), `exporter` (at an address, or
    of the node's monitor pod through the Kubernetes API) or `cloudwatch` (of a node).
    """

    source: str = "monitor"
    pod: str = ""
    namespace: str = "default"
    container: str = ""
    node: str = ""
    exporter_url: str = ""
    cluster_name: str = ""
    minutes: int = 10

    def __str__(self) -> str:
        return f"pod {self.namespace}/{self.pod}" if self.pod else self.exporter_url or f"node {self.node}"

    def data(self) -> dict[str, Any]:
        return asdict(self)

    def problem(self) -> str | None:
        """What is missing or too much; None for a target that can be asked."""
        given = {name for name in ("pod", "node", "exporter_url", "cluster_name") if getattr(self, name)}
        fitting = {
            "monitor": ({"pod"}, {"node"}),
            "exporter": ({"exporter_url"}, {"exporter_url", "node"}, {"node"}),
            "cloudwatch": ({"cluster_name", "node"},),
        }
        if self.source not in fitting:
            return f"source = {self.source!r}: use one of {', '.join(SOURCES)}."
        if given not in fitting[self.source]:
            ways = " or ".join(" and ".join(sorted(each)) for each in fitting[self.source])
            return f"source {self.source} takes {ways}; given: {', '.join(sorted(given)) or 'none of them'}."
        return None

    def reader(self, cluster: Cluster, cloudwatch: Any = None) -> Reader:
        """Raises NotFound, Inconclusive (no monitor pod), ClusterUnavailable."""
        from trainyard.cloudwatch import InsightsReader
        from trainyard.kube import readers

        if self.source == "cloudwatch":
            return InsightsReader(cloudwatch, self.cluster_name, self.node, self.minutes)
        if self.source == "exporter":
            if self.exporter_url:
                return readers.http_exporter(self.exporter_url)
            return readers.proxied_exporter(cluster, self.node)
        if self.pod:
            return readers.PodReader(cluster, self.namespace, self.pod, self.container)
        return readers.NodeReader(cluster, self.node)

    def conditions(self, cluster: Cluster) -> Sequence[Mapping[str, Any]]:
        """What agents say of the node; nothing where no node is known."""
        from trainyard.kube import readers

        if self.pod:
            return readers.conditions_at(cluster, self.namespace, self.pod)
        return readers.node_conditions(cluster, self.node) if self.node else []


def looker(target: Target, window: Window, cluster: Cluster, cloudwatch: Any = None) -> Callable[[], Look]:
    """A look that remembers: readings are gathered from call to call."""
    return partial(_look, target, window, target.reader(cluster, cloudwatch), cluster)


def _look(target: Target, window: Window, reader: Reader, cluster: Cluster) -> Look:
    """Raises DeviceUnhealthy, and what the reader raises."""
    from trainyard.errors import DeviceUnhealthy, TransientError
    from trainyard.kube.looks import Look

    silent: TransientError | None = None
    try:
        window.add(reader.read())
    except TransientError as error:
        silent = error  # a condemned node is sick all the same
    found = window.health(target.conditions(cluster))
    said = "; ".join(found.reasons)
    if found.state == "sick":
        raise DeviceUnhealthy(
            f"Neuron devices of {target} are not well: {said}. The node is to blame before the model: "
            f"replace it."
        )
    if silent is not None:
        raise silent
    data = {"target": str(target), "state": found.state, **found.facts}
    if found.state == "healthy":
        words = f"{found.facts['devices']} Neuron device(s) of {target} are healthy"
        return Look(True, f"{words}, by {found.facts['source']}", data)
    return Look(False, f"nobody can say yet whether the devices of {target} are well: {said}", data)
