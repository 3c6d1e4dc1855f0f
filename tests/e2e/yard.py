"""What the end-to-end tests have in their hands: Airflow's API, the cluster, the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from trainyard.asking import DAG_ID
from trainyard.kube.cluster import Cluster
from trainyard.release import Release
from trainyard_cli import records, releasing
from trainyard_cli.airflow_api import ENDED, Airflow, ApiError
from trainyard_cli.demo import connect_cluster
from trainyard_cli.stack import Stack

REPOSITORY = Path(__file__).resolve().parents[2]
# Only what never comes is waited for so long. Some machines take many times as long as others for the same.
PATIENCE = 900.0


@dataclass
class Yard:
    airflow: Airflow
    stack: Stack
    console: Console
    publish: Callable[..., str]
    runs: dict[str, str] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        return connect_cluster()

    def ask(self, model: str, **overrides: Any) -> str:
        """Starts a release; overrides by dotted field with `__` for the dot. Returns its run id."""
        sets: dict[str, Any] = {}
        for path, value in overrides.items():
            node = sets
            *parents, last = path.split("__")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        conf = {"release": model, "overrides": sets}
        return self.airflow.trigger(DAG_ID, None, conf).run_id

    def follow(self, run_id: str, seconds: float = PATIENCE) -> Release:
        """Waits for a run's end and returns its record."""
        ended = releasing.watch(self.airflow, run_id, self.console, timeout=seconds)
        assert ended.record is not None, f"{run_id} ended as {ended.state} without a record: {ended.tasks}"
        return Release.model_validate(ended.record)

    def wait_for(self, what: str, look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """The first true answer of `look`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if found := look():
                    return found
            except (httpx.TransportError, ApiError) as error:
                if isinstance(error, ApiError) and error.status < 500:
                    raise
            time.sleep(0.2)
        raise AssertionError(f"{what} did not come in {seconds:.0f} s")

    def task(self, run_id: str, task_id: str) -> dict[str, Any]:
        return next(item for item in self.airflow.tasks(DAG_ID, run_id) if item["task_id"] == task_id)

    def pods(self, model: str, component: str) -> list[dict[str, Any]]:
        labels = f"trainyard.dev/model={model},app.kubernetes.io/component={component}"
        return self.cluster.list("Pod", labels=labels)

    def pid(self, service: str) -> int:
        return int(self.stack.state["services"][service]["pid"])

    def is_back(self, service: str, killed: int) -> bool:
        """Whether a service that had this pid was started again, and is ready."""
        unit = self.stack.state["services"][service]
        return unit["state"] == "ready" and unit["pid"] != killed

    def is_free(self, model: str) -> bool:
        """Whether the model's lease was given back."""
        from trainyard.store.leases import Leases

        return Leases(records.objects()).current(model) is None

    def ended(self, run_id: str) -> bool:
        return self.airflow.run(DAG_ID, run_id).state in ENDED
