"""The provider's operator for pods, as JobPodOperator holds it. Imported late: it costs seconds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.triggers.base import BaseTrigger

from trainyard_airflow.triggers.patience import patience
from trainyard_airflow.triggers.pod import PatientPodTrigger


class PatientPodOperator(KubernetesPodOperator):
    """KubernetesPodOperator whose trigger does not fire before Airflow has seen the deferral."""

    def defer(
        self,
        *,
        trigger: BaseTrigger,
        method_name: str,
        kwargs: dict[str, Any] | None = None,
        timeout: timedelta | int | float | None = None,
    ) -> NoReturn:
        _, arguments = trigger.serialize()
        super().defer(
            trigger=PatientPodTrigger(pause=patience(), **arguments),
            method_name=method_name,
            kwargs=kwargs,
            timeout=timeout,
        )
