"""What pods that carry one load test together have agreed on, as their job document says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.bench.load import BEAT_SECONDS
from trainyard.jobs.runtime import field


@dataclass(frozen=True)
class Terms:
    """index: which worker this is; of: how many there are. ready_seconds: until all have to be ready.
    silence_seconds: after which a worker that says nothing is lost. beat_seconds: between two words of each.
    go_seconds: from the go to the start."""

    index: int = 0
    of: int = 1
    attempt: str = "only"
    ready_seconds: float = 600.0
    silence_seconds: float = 45.0
    beat_seconds: float = BEAT_SECONDS
    go_seconds: float = 3.0

    @property
    def s3(self) -> dict[str, Any]:
        """How to ask S3 where the others wait for our word: one connection that hangs must not use up all the
        silence that is allowed, with the five times that `Objects` asks."""
        return {"attempts": 2, "connect_seconds": 3.0, "read_seconds": max(1.0, self.silence_seconds / 12)}

    @classmethod
    def from_job(cls, job: Mapping[str, Any]) -> Terms:
        """Raises PermanentError."""
        given: Mapping[str, Any] = field(job, "crew", dict, {})
        times = ("ready_seconds", "silence_seconds", "beat_seconds", "go_seconds")
        return cls(
            index=field(given, "index", int, 0),
            of=field(given, "of", int, 1),
            attempt=field(given, "attempt", str, cls.attempt),
            **{name: float(field(given, name, (int, float), getattr(cls, name))) for name in times},
        )
