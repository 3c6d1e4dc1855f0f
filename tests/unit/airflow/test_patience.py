"""Triggers keep still until Airflow has seen the deferral, and lose nothing by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import TriggerEvent

from trainyard_airflow.operators.kubernetes import PatientPodOperator
from trainyard_airflow.triggers.patience import patience
from trainyard_airflow.triggers.pod import PatientPodTrigger


def inner() -> KubernetesPodTrigger:
    return KubernetesPodTrigger(
        pod_name="compile-x",
        pod_namespace="trainyard-jobs",
        trigger_start_time=datetime(2026, 1, 1, tzinfo=UTC),
        base_container_name="base",
        kubernetes_conn_id="kubernetes_default",
        poll_interval=1.0,
        logging_interval=10,
    )


def test_a_pod_trigger_survives_serialization_with_its_pause() -> None:
    trigger = PatientPodTrigger(pause=2.0, **inner().serialize()[1])
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(import_module(module), name)(**kwargs)
    assert again.serialize() == (path, kwargs)
    assert kwargs["pause"] == 2.0


def test_a_deferred_pod_is_watched_by_the_patient_trigger() -> None:
    operator = PatientPodOperator(task_id="t", name="compile-x", namespace="trainyard-jobs", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.defer(trigger=inner(), method_name="trigger_reentry", timeout=60)
    trigger = deferred.value.trigger
    assert isinstance(trigger, PatientPodTrigger)
    assert trigger.pause == patience() > 1.0
    assert trigger.pod_name == "compile-x"


async def test_the_first_look_comes_after_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []

    async def sleep(seconds: float) -> None:
        order.append(seconds)

    async def run(self: KubernetesPodTrigger) -> AsyncIterator[TriggerEvent]:
        order.append("look")
        yield TriggerEvent({"status": "success"})

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(KubernetesPodTrigger, "run", run)
    trigger = PatientPodTrigger(pause=2.0, **inner().serialize()[1])
    events = [event async for event in trigger.run()]
    assert order == [2.0, "look"]
    assert events == [TriggerEvent({"status": "success"})]
