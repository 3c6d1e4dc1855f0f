"""What operators that wait for the cluster share, inside our DAGs' pipeline or in anybody's own DAG."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

if TYPE_CHECKING:
    from airflow.sdk import Context as AirflowContext
    from airflow.triggers.base import BaseTrigger

    from trainyard.kube.looks import Look

# The trigger itself says that time is up, with its last words; Airflow's own timeout is only the backstop.
_BACKSTOP = timedelta(minutes=5)


class ClusterSensor(BaseSensorOperator):
    """Looks at a cluster until what is waited for is there, and returns what it saw (XCom).

    A sensor to Airflow: `timeout`, `poke_interval`, `soft_fail`, `never_fail` and `mode` mean what they
    always mean. Deferrable: the first look is taken in the task, the others in the triggerer. What can never
    be fails at once; an API server that is away for a while is waited for. Needs a Kubernetes connection, no
    setting of Trainyard.

    :param kubernetes_conn_id: the provider's connection.
    :param timeout: seconds or a timedelta; half an hour, and not Airflow's seven days.
    :param deferrable: default: `[operators] default_deferrable`.
    """

    ui_color = "#eef4ff"
    template_fields: Sequence[str] = ()
    # Name of the error class that "time is up" is told as.
    timeout_error = "NoCapacity"

    def __init__(
        self,
        *,
        kubernetes_conn_id: str = "kubernetes_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: timedelta | float = 30,
        timeout: timedelta | float = 1800,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, timeout=timeout, **kwargs)
        self.kubernetes_conn_id, self.deferrable = kubernetes_conn_id, deferrable
        self._said = ""

    @abstractmethod
    def look(self) -> Look:
        """One look, from the task itself."""

    @abstractmethod
    def trigger(self, pause: float) -> BaseTrigger:
        """What takes the other looks."""

    def poke(self, context: AirflowContext) -> PokeReturnValue:
        """Raises AirflowFailException for what can never be."""
        from trainyard.errors import PermanentError, TransientError

        try:
            seen = self.look()
        except PermanentError as error:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        except TransientError as error:
            self.log.warning("%s", error)
            return PokeReturnValue(False)
        if seen.note != self._said:
            self.log.info("%s", seen.note)
            self._said = seen.note
        return PokeReturnValue(seen.done, self.answer(seen.note, seen.data) if seen.done else None)

    def execute(self, context: AirflowContext) -> Any:
        from trainyard_airflow.triggers.patience import patience

        if not self.deferrable:
            return super().execute(context)
        first = self._guarded(context)
        if not first.is_done:
            self.defer(
                trigger=self.trigger(patience()),
                method_name="resume",
                timeout=timedelta(seconds=self.timeout) + _BACKSTOP,
            )
        return first.xcom_value

    def resume(self, context: AirflowContext, event: dict[str, Any]) -> Any:
        """What the trigger saw last. Raises AirflowSensorTimeout when time is up, as every sensor does."""
        if event["status"] == "done":
            self.log.info("%s", event["note"])
            return self.answer(event["note"], event["data"])
        words = f"{event['error']}: {event['message']}"
        if event["error"] == self.timeout_error:
            raise AirflowSensorTimeout(words)
        raise AirflowFailException(words)

    def answer(self, note: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """The XCom."""
        return {"note": note, **data}

    def _guarded(self, context: AirflowContext) -> PokeReturnValue:
        """The first look of a deferrable sensor; `resume` is guarded by Airflow's own resume_execution."""
        try:
            return self.poke(context)
        except (AirflowSkipException, TaskDeferred):
            raise
        except AirflowException as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise


class WatcherSensor(ClusterSensor):
    """A ClusterSensor by one of the watchers of `trainyard.kube.watchers`."""

    watcher = ""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """The watcher's, as JSON."""

    def look(self) -> Look:
        from trainyard.kube.watchers import WATCHERS
        from trainyard_airflow import seams

        return WATCHERS[self.watcher](seams.cluster(self.kubernetes_conn_id), **self.arguments())

    def trigger(self, pause: float) -> BaseTrigger:
        from trainyard_airflow.triggers.cluster import ClusterTrigger

        return ClusterTrigger(
            watcher=self.watcher,
            arguments=self.arguments(),
            seconds=self.timeout,
            timeout_error=self.timeout_error,
            poll_seconds=self.poke_interval,
            kubernetes_conn_id=self.kubernetes_conn_id,
            pause=pause,
        )
