"""The provider's trigger for pods, which keeps still for a moment first (see `patience`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.triggers.base import TriggerEvent


class PatientPodTrigger(KubernetesPodTrigger):
    """:param pause: seconds before the first look at the pod."""

    def __init__(self, *, pause: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pause = pause

    def serialize(self) -> tuple[str, dict[str, Any]]:
        _, kwargs = super().serialize()
        return ("trainyard_airflow.triggers.pod.PatientPodTrigger", {**kwargs, "pause": self.pause})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(self.pause)
        async for event in super().run():
            yield event
