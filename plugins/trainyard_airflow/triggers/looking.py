"""A wait: one look after another, until it is done, hopeless, or time is up."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from trainyard.kube.looks import Look


class LookingTrigger(BaseTrigger):
    """Takes a look, in a thread, every `poll_seconds`.

    Nothing outside is made or owned by it, so there is nothing to cancel, and running twice is harmless.

    :param seconds: how long to wait; counted anew when another triggerer takes over, with `deadline` as the
    bound.
    :param pause: seconds before the first look (see `patience`).
    :param timeout_error: name of the error class for "time is up".
    """

    def __init__(
        self,
        *,
        seconds: float,
        timeout_error: str,
        poll_seconds: float,
        pause: float = 0.0,
        deadline: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds, self.timeout_error = seconds, timeout_error
        self.poll_seconds, self.pause = poll_seconds, pause
        # Wall-clock, because it has to survive the triggerer that counted it.
        self.deadline = deadline if deadline is not None else time.time() + seconds

    def waiting(self) -> dict[str, Any]:
        """Its own part of `serialize`."""
        return {
            "seconds": self.seconds,
            "timeout_error": self.timeout_error,
            "poll_seconds": self.poll_seconds,
            "pause": self.pause,
            "deadline": self.deadline,
        }

    @abstractmethod
    async def prepare(self) -> Callable[[], Look]:
        """Reads connections by the way that triggers may; gives back the look."""

    def last_words(self) -> str:
        """What is worth adding when time is up; called in a thread."""
        return ""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from trainyard.errors import PermanentError, TransientError

        await asyncio.sleep(self.pause)
        look = await self.prepare()
        note = ""
        while True:
            try:
                seen = await asyncio.to_thread(look)
            except PermanentError as error:
                yield self._ended(type(error).__name__, str(error))
                return
            except TransientError as error:
                self.log.warning("%s", error)
                note = note or str(error)
            else:
                if seen.note != note:
                    note = seen.note
                    self.log.info("%s", note)
                if seen.done:
                    yield TriggerEvent({"status": "done", "note": note, "data": dict(seen.data)})
                    return
            if time.time() >= self.deadline:
                try:
                    words = await asyncio.to_thread(self.last_words)
                except (PermanentError, TransientError) as error:
                    words = f"Their last words could not be read: {error}"
                message = f"Waited {self.seconds:.0f} s. Last seen: {note or 'nothing'}"
                yield self._ended(self.timeout_error, f"{message}\n{words}".strip())
                return
            await asyncio.sleep(self.poll_seconds)

    @staticmethod
    def _ended(error: str, message: str) -> TriggerEvent:
        return TriggerEvent({"status": "failed", "error": error, "message": message})
