"""Operators that look at Neuron devices, for any DAG. `docs/operators.md` has an example of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from trainyard_airflow.devices import Target
from trainyard_airflow.operators.waiting import ClusterSensor, WatcherSensor

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

    from trainyard.kube.looks import Look


class NeuronDevicePluginSensor(WatcherSensor):
    """Waits until nodes offer all of their chips (allocatable aws.amazon.com/neuron); says what is missing.

    :param node: one node by name; or `nodepool` and/or `labels`: all nodes of them.
    :param chips: per node; 0: as many as the instance type has.
    :param nodes: how many nodes there have to be at least.
    """

    template_fields: Sequence[str] = ("node", "nodepool", "labels", "kubernetes_conn_id")
    watcher = "device_plugin"

    def __init__(
        self,
        *,
        node: str = "",
        nodepool: str = "",
        labels: str = "",
        chips: int = 0,
        nodes: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if bool(node) == bool(nodepool or labels):
            raise ValueError("Name either node, or nodepool and/or labels: they choose the nodes to look at.")
        self.node, self.nodepool, self.labels = node, nodepool, labels
        self.chips, self.nodes = chips, nodes

    def arguments(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "nodepool": self.nodepool,
            "labels": self.labels,
            "chips": self.chips,
            "nodes": self.nodes,
        }


class NeuronHealthOperator(ClusterSensor):
    """Judges Neuron devices; fails as DeviceUnhealthy, or as Inconclusive when nobody can say in time.

    Silence is never healthy. Uncorrected ECC events count as they grow: by neuron-monitor's JSON they
    condemn, by the exporter or CloudWatch (which over-count) they only keep the devices from being called
    healthy.

    :param source: `monitor` with pod (and container) or node; `exporter` with exporter_url or node;
        `cloudwatch` with cluster_name and node.
    :param chips: Neuron devices that have to be there; 0: any number.
    :param window: how long to watch; seconds or a timedelta. Two readings are the least.
    :param least_free_memory: share of the device memory, 0 to 1, that has to be free. The exporter and
        CloudWatch do not say how much there is: give `instance_type`.
    :param utilization: (least, most) percent, as mean over the window.
    :param runtime: a Neuron runtime has to be running; False for nodes that serve nothing.
    """

    template_fields: Sequence[str] = (
        *("pod", "namespace", "container", "node", "exporter_url", "cluster_name", "chips"),
        *("kubernetes_conn_id", "aws_conn_id", "region_name"),
    )
    timeout_error = "Inconclusive"

    def __init__(
        self,
        *,
        source: str = "monitor",
        pod: str = "",
        namespace: str = "default",
        container: str = "",
        node: str = "",
        exporter_url: str = "",
        cluster_name: str = "",
        minutes: int = 10,
        chips: int | str = 0,
        instance_type: str = "",
        window: timedelta | float = 0.0,
        least_free_memory: float = 0.0,
        utilization: tuple[float, float] | None = None,
        runtime: bool = True,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.mode != "poke":
            raise ValueError("mode = 'reschedule' forgets what was read before: use deferrable=True.")
        self.source, self.pod, self.namespace, self.container = source, pod, namespace, container
        self.node, self.exporter_url, self.cluster_name = node, exporter_url, cluster_name
        self.minutes, self.chips, self.instance_type = minutes, chips, instance_type
        self.window = window.total_seconds() if isinstance(window, timedelta) else float(window)
        self.least_free_memory, self.utilization, self.runtime = least_free_memory, utilization, runtime
        self.aws_conn_id, self.region_name = aws_conn_id, region_name
        self._look: Callable[[], Look] | None = None
        problem = self.target().problem()
        if problem is not None:
            raise ValueError(f"Whose devices? {problem}")

    def target(self) -> Target:
        return Target(
            source=self.source,
            pod=self.pod,
            namespace=self.namespace,
            container=self.container,
            node=self.node,
            exporter_url=self.exporter_url,
            cluster_name=self.cluster_name,
            minutes=self.minutes,
        )

    def expected(self) -> dict[str, Any]:
        """Fields of `Expected`, as JSON. Raises Refused for an instance type that is not known."""
        from trainyard.neuron.health import Expected
        from trainyard.neuron.instances import instance

        memory = instance(self.instance_type).hbm_gb_per_chip * 10**9 if self.instance_type else 0
        fields = asdict(
            Expected(
                devices=int(self.chips),
                least_free_memory=self.least_free_memory,
                device_memory_bytes=memory,
                runtime=self.runtime,
            )
        )
        # A list, as JSON gives it back.
        return {**fields, "utilization": list(self.utilization) if self.utilization else None}

    def look(self) -> Look:
        from trainyard.neuron.window import Window
        from trainyard_airflow import seams
        from trainyard_airflow.devices import looker
        from trainyard_airflow.triggers.neuron import expected_from

        if self._look is None:
            client = None
            if self.source == "cloudwatch":
                client = seams.cloudwatch(self.aws_conn_id, self.region_name)
            window = Window(expected_from(self.expected()), self.window)
            self._look = looker(self.target(), window, seams.cluster(self.kubernetes_conn_id), client)
        return self._look()

    def trigger(self, pause: float) -> BaseTrigger:
        from trainyard_airflow.triggers.neuron import NeuronHealthTrigger

        return NeuronHealthTrigger(
            target=self.target().data(),
            expected=self.expected(),
            window=self.window,
            seconds=self.timeout,
            timeout_error=self.timeout_error,
            poll_seconds=self.poke_interval,
            kubernetes_conn_id=self.kubernetes_conn_id,
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            pause=pause,
        )
