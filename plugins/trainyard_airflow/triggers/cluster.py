"""Waits for something in the cluster: one look after another, until it is done, hopeless, or time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async


class ClusterTrigger(BaseTrigger):
    """Calls a watcher of `trainyard.kube.watchers`, in a thread, every `poll_seconds`.

    Nothing outside is made or owned by it, so there is nothing to cancel, and running twice is harmless.

    :param seconds: how long to wait; counted anew when another triggerer takes over, with `deadline` as the
    bound.
    :param pause: seconds before the first look (see `patience`).
    :param timeout_error: name of the error class for "time is up".
    """

    def __init__(
        self,
        *,
        watcher: str,
        arguments: dict[str, Any],
        seconds: float,
        timeout_error: str,
        poll_seconds: float,
        kubernetes_conn_id: str,
        pause: float = 0.0,
        deadline: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watcher, self.arguments = watcher, arguments
        self.seconds, self.timeout_error = seconds, timeout_error
        self.poll_seconds, self.kubernetes_conn_id = poll_seconds, kubernetes_conn_id
        self.pause = pause
        # Wall-clock, because it has to survive the triggerer that counted it.
        self.deadline = deadline if deadline is not None else time.time() + seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "trainyard_airflow.triggers.cluster.ClusterTrigger",
            {
                "watcher": self.watcher,
                "arguments": self.arguments,
                "seconds": self.seconds,
                "timeout_error": self.timeout_error,
                "poll_seconds": self.poll_seconds,
                "kubernetes_conn_id": self.kubernetes_conn_id,
                "pause": self.pause,
                "deadline": self.deadline,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from trainyard.errors import PermanentError, TransientError
        from trainyard.kube.watchers import WATCHERS, last_words
        from trainyard_airflow import seams

        look = WATCHERS[self.watcher]
        await asyncio.sleep(self.pause)
        # The connection is read once, by the way that triggers may read one; looks go to a thread of their
        # own.
        cluster = await sync_to_async(seams.cluster)(self.kubernetes_conn_id)
        note = ""
        while True:
            try:
                seen = await asyncio.to_thread(look, cluster, **self.arguments)
            except PermanentError as error:
                yield self._ended(type(error).__name__, str(error))
                return
            except TransientError as error:
                self.log.warning("%s", error)
            else:
                if seen.note != note:
                    note = seen.note
                    self.log.info("%s", note)
                if seen.done:
                    yield TriggerEvent({"status": "done", "note": note, "data": dict(seen.data)})
                    return
            if time.time() >= self.deadline:
                try:
                    words = await asyncio.to_thread(last_words, cluster, self.watcher, self.arguments)
                except (PermanentError, TransientError) as error:
                    words = f"Their last words could not be read: {error}"
                message = f"Waited {self.seconds:.0f} s. Last seen: {note or 'nothing'}"
                yield self._ended(self.timeout_error, f"{message}\n{words}".strip())
                return
            await asyncio.sleep(self.poll_seconds)

    @staticmethod
    def _ended(error: str, message: str) -> TriggerEvent:
        return TriggerEvent({"status": "failed", "error": error, "message": message})
