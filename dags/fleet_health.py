"""Looks after what serves now: NodePools, the chips that nodes offer, the devices of every server.

It changes nothing. A sick device is a failed task `devices` with the device and the reason in its message:
cordon the node and delete its NodeClaim. Servers that start or go are left alone.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, task

from trainyard.settings import Settings
from trainyard_airflow.operators.karpenter import KarpenterNodePoolReadyOperator
from trainyard_airflow.operators.neuron import NeuronDevicePluginSensor, NeuronHealthOperator

if TYPE_CHECKING:
    from trainyard.stages.fleet import Server

settings = Settings()
LOOK: dict[str, Any] = {
    "kubernetes_conn_id": settings.kubernetes_conn_id,
    "poke_interval": settings.poll_seconds,
    "timeout": 300,
    "deferrable": True,
}


def serving() -> list[Server]:
    """What serves now, read by the task that asks."""
    from trainyard.stages import fleet
    from trainyard_airflow import seams

    config = seams.settings()
    return fleet.serving(seams.cluster(config.kubernetes_conn_id), config.serving_namespace)


with DAG(
    dag_id="fleet_health",
    description="Are the nodes and devices of what serves now well? Changes nothing.",
    doc_md=__doc__,
    schedule=settings.health_schedule,
    catchup=False,
    max_active_runs=1,
    tags=["trainyard"],
    default_args={"retries": 1, "retry_delay": timedelta(seconds=settings.retry_seconds)},
) as dag:

    @task
    def list_node_pools() -> list[str]:
        """Of the ready servers."""
        from trainyard.stages import fleet

        return fleet.nodepools(serving())

    @task
    def list_nodes() -> list[str]:
        """Of the ready servers."""
        from trainyard.stages import fleet

        return fleet.nodes(serving())

    @task
    def list_servers() -> list[dict[str, Any]]:
        """Every ready server pod, with the chips that it holds."""
        from trainyard.stages import fleet

        return fleet.devices(serving())

    KarpenterNodePoolReadyOperator.partial(
        task_id="node_pool", map_index_template="{{ task.nodepool }}", **LOOK
    ).expand(nodepool=list_node_pools())
    NeuronDevicePluginSensor.partial(
        task_id="device_plugin", map_index_template="{{ task.node }}", **LOOK
    ).expand(node=list_nodes())
    NeuronHealthOperator.partial(
        task_id="devices",
        namespace=settings.serving_namespace,
        map_index_template="{{ task.pod }}",
        **LOOK,
    ).expand_kwargs(list_servers())
