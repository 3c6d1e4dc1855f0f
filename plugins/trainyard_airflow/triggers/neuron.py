"""Watches Neuron devices for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from trainyard_airflow.triggers.looking import LookingTrigger

if TYPE_CHECKING:
    from trainyard.kube.looks import Look


class NeuronHealthTrigger(LookingTrigger):
    """Gathers readings until the devices are judged healthy or sick. Another triggerer begins a new window.

    :param target: fields of `trainyard_airflow.devices.Target`.
    :param expected: fields of `trainyard.neuron.health.Expected`.
    :param window: seconds that the devices have to be watched.
    """

    def __init__(
        self,
        *,
        target: dict[str, Any],
        expected: dict[str, Any],
        window: float,
        kubernetes_conn_id: str,
        aws_conn_id: str | None,
        region_name: str | None = None,
        **waiting: Any,
    ) -> None:
        super().__init__(**waiting)
        self.target, self.expected, self.window = target, expected, window
        self.kubernetes_conn_id, self.aws_conn_id = kubernetes_conn_id, aws_conn_id
        self.region_name = region_name

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "trainyard_airflow.triggers.neuron.NeuronHealthTrigger",
            {
                "target": self.target,
                "expected": self.expected,
                "window": self.window,
                "kubernetes_conn_id": self.kubernetes_conn_id,
                "aws_conn_id": self.aws_conn_id,
                "region_name": self.region_name,
                **self.waiting(),
            },
        )

    async def prepare(self) -> Callable[[], Look]:
        from trainyard.neuron.window import Window
        from trainyard_airflow import seams
        from trainyard_airflow.devices import Target, looker

        target = Target(**self.target)
        cluster = await sync_to_async(seams.cluster)(self.kubernetes_conn_id)
        client = None
        if target.source == "cloudwatch":
            client = await sync_to_async(seams.cloudwatch)(self.aws_conn_id, self.region_name)
        return looker(target, Window(expected_from(self.expected), self.window), cluster, client)


def expected_from(fields: dict[str, Any]) -> Any:
    """`Expected` from JSON, which has no tuples."""
    from trainyard.neuron.health import Expected

    bounds = fields.get("utilization")
    return Expected(**{**fields, "utilization": tuple(bounds) if bounds is not None else None})
