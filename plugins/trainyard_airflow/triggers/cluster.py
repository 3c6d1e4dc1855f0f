"""Waits for something in the cluster."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from trainyard_airflow.triggers.looking import LookingTrigger

if TYPE_CHECKING:
    from trainyard.kube.cluster import Cluster
    from trainyard.kube.looks import Look


class ClusterTrigger(LookingTrigger):
    """Calls a watcher of `trainyard.kube.watchers`.

    :param arguments: the watcher's, as JSON.
    """

    def __init__(
        self, *, watcher: str, arguments: dict[str, Any], kubernetes_conn_id: str, **waiting: Any
    ) -> None:
        super().__init__(**waiting)
        self.watcher, self.arguments = watcher, arguments
        self.kubernetes_conn_id = kubernetes_conn_id
        self._cluster: Cluster | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "trainyard_airflow.triggers.cluster.ClusterTrigger",
            {
                "watcher": self.watcher,
                "arguments": self.arguments,
                "kubernetes_conn_id": self.kubernetes_conn_id,
                **self.waiting(),
            },
        )

    async def prepare(self) -> Callable[[], Look]:
        from trainyard.kube.watchers import WATCHERS
        from trainyard_airflow import seams

        self._cluster = await sync_to_async(seams.cluster)(self.kubernetes_conn_id)
        return partial(WATCHERS[self.watcher], self._cluster, **self.arguments)

    def last_words(self) -> str:
        from trainyard.kube.watchers import last_words

        return last_words(self._cluster, self.watcher, self.arguments) if self._cluster is not None else ""
