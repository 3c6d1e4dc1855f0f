"""An operator as Airflow runs it: executed, deferred, its trigger stored and rebuilt, and resumed."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred


def connect(monkeypatch: pytest.MonkeyPatch, kubeconfig: Path, name: str = "kubernetes_tests") -> None:
    """A Kubernetes connection of Airflow, by environment."""
    extra = {"kube_config_path": str(kubeconfig)}
    value = json.dumps({"conn_type": "kubernetes", "extra": extra})
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", value)


def rebuilt(trigger: Any, **changes: Any) -> Any:
    """As the next triggerer makes it, from what Airflow has stored as JSON."""
    path, stored = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**{**json.loads(json.dumps(stored)), **changes})
    if not changes:
        assert again.serialize() == (path, stored)
    return again


async def first_event(trigger: Any) -> dict[str, Any]:
    async with asyncio.timeout(120):
        async for event in trigger.run():
            payload: dict[str, Any] = event.payload
            return payload
    raise AssertionError("the trigger ended without an event")


def deferred(operator: Any) -> TaskDeferred:
    """The deferral of an operator whose first look finds nothing."""
    with pytest.raises(TaskDeferred) as raised:
        operator.execute({})
    rebuilt(raised.value.trigger)
    return raised.value


def resumed(operator: Any, deferral: TaskDeferred, event: dict[str, Any]) -> Any:
    return operator.resume_execution(deferral.method_name, {"event": json.loads(json.dumps(event))}, {})


def finished(operator: Any, deferral: TaskDeferred, **changes: Any) -> Any:
    """Waits in the place of a triggerer, without the pause, and goes on."""
    event = asyncio.run(first_event(rebuilt(deferral.trigger, pause=0.0, poll_seconds=0.05, **changes)))
    return resumed(operator, deferral, event)
