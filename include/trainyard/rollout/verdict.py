"""What the judge is told and what it says. Plain data that survives JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from trainyard.errors import Problem, Refused

Outcome = Literal["pass", "fail", "inconclusive", "infrastructure_fault"]
Kind = Literal["slo", "baseline", "errors", "samples", "generator", "split", "device", "watch"]

# The worst decides. A fault of the measurement comes first: the rest then proves nothing about the model.
SEVERITY: tuple[Outcome, ...] = ("pass", "inconclusive", "fail", "infrastructure_fault")

COMPARED = ("ttft", "itl", "e2e")


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What must hold. Times are seconds.

    max_ratio: how many times the baseline's value a metric may be; a metric left out is not compared.
    floor_seconds: a difference below this is no regression, whatever the ratio.
    min_samples: successful requests that each arm needs before anything can pass.
    confidence: of every decision; all metrics together stay within it (Holm).
    looks: how often the same growing data may be judged. One failing look ends a release, so each gets its
    part of the error. Passing is not corrected: a release has to pass every phase.
    """

    ttft_p95_seconds: float
    itl_p95_seconds: float
    e2e_p95_seconds: float | None = None
    max_error_rate: float = 0.01
    min_samples: int = 20
    max_ratio: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(COMPARED, 1.25))
    floor_seconds: Mapping[str, float] = field(
        default_factory=lambda: {"ttft": 0.010, "itl": 0.003, "e2e": 0.050}
    )
    confidence: float = 0.95
    looks: int = 1

    @property
    def alpha(self) -> float:
        """How often one look may fail a canary that holds."""
        return (1 - self.confidence) / self.looks

    @property
    def beta(self) -> float:
        """How often one look may pass a canary that does not hold."""
        return 1 - self.confidence

    def __post_init__(self) -> None:
        """Raises `Refused`: an objective that is no number would never be missed."""
        numbers = {"ttft_p95_seconds", "itl_p95_seconds"}
        numbers |= {"e2e_p95_seconds"} if self.e2e_p95_seconds is not None else set()
        values = {f"objectives.{name}": getattr(self, name) for name in sorted(numbers)}
        problems = [
            Problem(name, value, "must be a number above zero", "Say what the server has to hold")
            for name, value in values.items()
            if not (math.isfinite(value) and value > 0)
        ]
        limits: dict[str, tuple[Mapping[str, float], float]] = {
            "max_ratio": (self.max_ratio, 1.0),
            "floor_seconds": (self.floor_seconds, 0.0),
        }
        for name, (by_metric, least) in limits.items():
            for metric, value in by_metric.items():
                where, remedy = f"objectives.{name}.{metric}", f"Known: {', '.join(COMPARED)}"
                if metric not in COMPARED:
                    problems.append(Problem(where, value, "is no metric that is compared", remedy))
                elif not (math.isfinite(value) and value >= least):
                    rule = f"must be a number of at least {least:g}"
                    problems.append(Problem(where, value, rule, "Say how much slower is still good"))
        rules = {
            "max_error_rate": (0 <= self.max_error_rate <= 1, "must be between 0 and 1"),
            "confidence": (0.5 <= self.confidence < 1, "must be at least 0.5 and below 1"),
            "looks": (self.looks >= 1, "must be at least 1"),
            "min_samples": (self.min_samples >= 1, "must be at least 1"),
        }
        problems += [
            Problem(f"objectives.{name}", getattr(self, name), rule, "Correct it, or leave it out")
            for name, (holds, rule) in rules.items()
            if not holds
        ]
        if problems:
            raise Refused(problems)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Objectives:
        """One number as `max_ratio` or `floor_seconds` holds for every metric.

        Raises `Refused` for a field that does not exist: a mistyped objective would go unjudged.
        """
        known = {item.name for item in fields(cls)}
        remedy = f"Known: {', '.join(sorted(known))}"
        unknown = [
            Problem(f"objectives.{key}", value, "is not an objective", remedy)
            for key, value in document.items()
            if key not in known
        ]
        if unknown:
            raise Refused(unknown)
        values = dict(document)
        for key in ("max_ratio", "floor_seconds"):
            if isinstance(values.get(key), int | float):
                values[key] = dict.fromkeys(COMPARED, values[key])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    limit: what `arm_value` (or, for kind `baseline`, its ratio to `baseline_value`) may be at most.
    low, high: interval of that same quantity, where one was worked out.
    """

    metric: str
    statistic: str
    kind: Kind
    outcome: Outcome
    text: str
    arm_value: float | None = None
    baseline_value: float | None = None
    limit: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Verdict:
    """outcome: the worst of the checks'. summary: one sentence for people."""

    outcome: Outcome
    checks: tuple[Check, ...]
    summary: str

    @property
    def reasons(self) -> tuple[str, ...]:
        """Texts of the checks that did not pass, the deciding ones first."""
        worst_first = sorted(self.checks, key=lambda check: -SEVERITY.index(check.outcome))
        return tuple(check.text for check in worst_first if check.outcome != "pass")

    def to_dict(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "summary": self.summary,
            "checks": [asdict(check) for check in self.checks],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Verdict:
        checks = tuple(Check(**check) for check in document["checks"])
        return cls(outcome=document["outcome"], checks=checks, summary=document["summary"])


def conclude(checks: tuple[Check, ...]) -> Verdict:
    """No check at all is no pass."""
    if not checks:
        return Verdict("inconclusive", checks, "inconclusive: nothing was measured")
    outcome = max((check.outcome for check in checks), key=SEVERITY.index)
    deciding = [check.text for check in checks if check.outcome == outcome]
    if outcome == "pass":
        slos = [check.text for check in checks if check.kind in ("slo", "errors")]
        return Verdict(outcome, checks, f"pass: {'; '.join(slos or deciding)}")
    more = f" (and {len(deciding) - 1} more)" if len(deciding) > 1 else ""
    return Verdict(outcome, checks, f"{outcome.replace('_', ' ')}: {deciding[0]}{more}")


def say_time(seconds: float) -> str:
    """`8.3 ms`, `312 ms`, `1.24 s`."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
