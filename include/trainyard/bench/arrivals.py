"""When requests are sent in an open loop: whatever the server does, on schedule. Pure; seconds throughout.

A process of rate one (constant, Poisson, gamma) is laid over the expected number of arrivals up to each
moment, so ramps and steps have the process's own irregularity. A trace gives the moments themselves.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.bench.checking import Number, is_number
from trainyard.bench.trace import Trace
from trainyard.errors import Problem, Refused

PROCESSES = ("constant", "poisson", "gamma")
# Of gamma. Far below, bursts have thousands of times the requests of the rate.
SHAPE = Number(0.01, 100, whole=False)
SPEED = Number(0.001, 1000, whole=False)
TRACE = "trace"  # the moments of the workload's trace, instead of a process


@dataclass(frozen=True)
class Stage:
    """`seconds` long, from `rate` to `to` requests a second, in a straight line."""

    seconds: float
    rate: float
    to: float

    @property
    def expected(self) -> float:
        return self.seconds * (self.rate + self.to) / 2

    def when(self, count: float) -> float:
        """Seconds into the stage when `count` arrivals are expected; `count` is at most `expected`."""
        slope = (self.to - self.rate) / self.seconds
        # The other form of the root: exact for a level stage too.
        pace = self.rate + math.sqrt(max(0.0, self.rate**2 + 2 * slope * count))
        return min(self.seconds, 2 * count / pace) if pace > 0 else 0.0


@dataclass(frozen=True)
class Arrivals:
    """stages: one after the other. shape: of gamma; below 1 comes in bursts, 1 is Poisson, above is steadier.
    offsets: a trace's moments, ascending from 0, instead of stages."""

    process: str = "poisson"
    stages: tuple[Stage, ...] = ()
    shape: float = 1.0
    offsets: tuple[float, ...] = ()

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], duration: float, trace: Callable[[], Trace | None] = lambda: None
    ) -> Arrivals:
        """`{"process", "shape"}` and `rate` (for the whole duration), `rate` with `to` (a ramp), `stages`
        ([{"seconds", "rate", "to"}, ...]) or `offsets`; or `{"process": "trace", "speed"}`: the moments of
        `trace`, `speed` times as fast, as far as the duration reaches. Raises `Refused` with every broken
        rule."""
        if document.get("process") == TRACE:
            return cls._replay(document, duration, trace())
        problems = _unknown(document, ("process", "shape", "rate", "to", "stages", "offsets"))
        given = [key for key in ("rate", "stages", "offsets") if document.get(key) not in (None, [], ())]
        if len(given) != 1:
            remedy = "Give rate, stages or offsets, or the process trace"
            problems.append(_problem("", sorted(document), "must say how many requests come when", remedy))
        process, shape = document.get("process", "poisson"), document.get("shape", 1.0)
        if process not in PROCESSES:
            known = ", ".join((*PROCESSES, TRACE))
            problems.append(_problem("process", process, "is not known", f"Known: {known}"))
        if not SHAPE.takes(shape):
            problems.append(_problem("shape", shape, SHAPE.words, "1 is Poisson"))
        rows = document.get("stages") or [{**document, "seconds": duration}] if given != ["offsets"] else []
        stages = []
        for row in rows:
            seconds, rate = row.get("seconds"), row.get("rate")
            to = row.get("to", rate)
            if not all(_number(value) for value in (seconds, rate, to)) or seconds <= 0 or rate + to <= 0:
                remedy = "seconds above zero; rate, to of zero or more, not both zero"
                problems.append(_problem("stages", row, "is no stage", remedy))
            else:
                stages.append(Stage(seconds, rate, to))
        offsets = tuple(document.get("offsets") or ())
        if not all(_number(value) for value in offsets) or list(offsets) != sorted(offsets):
            problems.append(_problem("offsets", offsets[:5], "must be ascending seconds", "Sort the trace"))
        if problems:
            raise Refused(problems)
        return cls(process, tuple(stages), shape, offsets)

    @classmethod
    def _replay(cls, document: Mapping[str, Any], duration: float, trace: Trace | None) -> Arrivals:
        problems = _unknown(document, ("process", "speed"))
        speed = document.get("speed", 1.0)
        if not SPEED.takes(speed):
            problems.append(_problem("speed", speed, SPEED.words, "1 is as recorded"))
        if trace is None or not trace.timed:
            remedy = "Name a trace whose rows have at (seconds) or timestamp (milliseconds), or give a rate"
            problems.append(_problem("process", TRACE, "there is no trace with moments", remedy))
        if problems or trace is None:
            raise Refused(problems)
        moments = ((row.at or 0.0) / speed for row in trace.rows)
        return cls(TRACE, offsets=tuple(moment for moment in moments if moment <= duration))

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages) if self.stages else max(self.offsets, default=0.0)

    @property
    def expected(self) -> float:
        """Requests on average."""
        return sum(stage.expected for stage in self.stages) if self.stages else len(self.offsets)

    def schedule(self, seed: object) -> list[float]:
        """Moments of the requests, ascending, from 0 to `seconds`. The same seed gives the same."""
        if self.offsets:
            return list(self.offsets)
        return list(self._laid_over(_process(self.process, self.shape, random.Random(f"arrivals/{seed}"))))

    def _laid_over(self, counts: Iterable[float]) -> Iterator[float]:
        stages = iter(self.stages)
        stage, before, start = next(stages), 0.0, 0.0
        for count in counts:
            while count - before >= stage.expected:
                before += stage.expected
                start += stage.seconds
                following = next(stages, None)
                if following is None:
                    return
                stage = following
            yield start + stage.when(count - before)


def _process(name: str, shape: float, chance: random.Random) -> Iterator[float]:
    """Where the arrivals of a process of rate one lie; infinite."""
    at = 0.0
    while True:
        if name == "constant":
            yield at
            at += 1.0
        else:
            at += chance.expovariate(1.0) if name == "poisson" else chance.gammavariate(shape, 1 / shape)
            yield at


def _unknown(document: Mapping[str, Any], known: Sequence[str]) -> list[Problem]:
    remedy = f"Known: {', '.join(known)}"
    return [
        _problem(key, document[key], "is not a field of arrivals", remedy)
        for key in sorted(set(document) - set(known))
    ]


def _number(value: object) -> bool:
    return is_number(value) and value >= 0


def _problem(field: str, value: object, rule: str, remedy: str) -> Problem:
    return Problem(f"workload.arrivals{'.' if field else ''}{field}", value, rule, remedy)
