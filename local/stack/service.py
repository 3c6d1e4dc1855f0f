"""What the supervisor starts: long-running services, and steps that run once and are done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from signal import SIGTERM, Signals

import psutil

Probe = Callable[[float], Awaitable[bool]]
"""Is it ready? Takes the Unix time at which the process was started; a refused connection is a no."""


@dataclass(frozen=True)
class Service:
    """A process that stays. It is started when all of `needs` are ready, and again when it dies."""

    name: str
    command: tuple[str, ...]
    ready: Probe
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    prepare: Callable[[], Awaitable[None]] | None = None
    """Runs before each start."""
    stop_signal: Signals = SIGTERM
    stop_seconds: float = 10.0
    ready_seconds: float = 300.0
    spares: Callable[[psutil.Process], bool] = lambda process: False
    """Which children of a crashed process are doing work that must not be cut, and end by themselves."""


@dataclass(frozen=True)
class Step:
    """Something to be done once a start: it is ready when it has returned.

    `run` raises `StepFailed` (or any exception, which is then shown as it is) to stop the start.
    """

    name: str
    run: Callable[[], Awaitable[str | None]]
    """May return a remark."""
    needs: tuple[str, ...] = ()
    ready_seconds: float = 300.0
    repeats: bool = False
    """Whether it is done again when something that it needs was started again and has forgotten."""


class StepFailed(Exception):
    """Says what went wrong and what to do about it."""


Part = Service | Step


class UnknownService(ValueError):
    """A name that no part of the stack has."""


def select(parts: tuple[Part, ...], only: tuple[str, ...]) -> tuple[Part, ...]:
    """The named parts and all that they need; all parts when none is named. Keeps the order."""
    by_name = {part.name: part for part in parts}
    wanted: set[str] = set()
    waiting = list(only or by_name)
    while waiting:
        name = waiting.pop()
        if name not in by_name:
            raise UnknownService(f"no service is called {name!r}; there are {', '.join(by_name)}")
        if name not in wanted:
            wanted.add(name)
            waiting.extend(by_name[name].needs)
    return tuple(part for part in parts if part.name in wanted)
