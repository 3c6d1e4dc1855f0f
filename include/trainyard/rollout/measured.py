"""Samples as arrays that the judge can resample; or the reason why they are not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainyard.bench.samples import Sample
from trainyard.rollout.chance import Floats, Ints


@dataclass(frozen=True)
class Values:
    """One metric of one arm, over its successful requests.

    seconds: all values. units: index of the unit that each belongs to, same shape.
    missing: successful requests in which the metric is absent or no number. A single one spoils the metric:
    nobody knows whether it was the slow one.
    """

    seconds: Floats
    units: Ints
    missing: int

    @property
    def usable(self) -> bool:
        return not self.missing and len(self.seconds) > 0


@dataclass(frozen=True)
class Arm:
    """units: how many there are to draw from. paired: units are pairs, the same ones in both arms."""

    samples: tuple[Sample, ...]
    unit_of: tuple[int, ...]
    units: int
    paired: bool

    @property
    def succeeded(self) -> int:
        return sum(sample.ok for sample in self.samples)

    @property
    def censored(self) -> int:
        return sum(sample.censored for sample in self.samples)

    @property
    def failed(self) -> int:
        return len(self.samples) - self.succeeded - self.censored

    @property
    def ended(self) -> int:
        """Requests whose fate is known."""
        return len(self.samples) - self.censored

    def values(self, metric: str) -> Values:
        seconds: list[float] = []
        units: list[int] = []
        missing = 0
        for sample, unit in zip(self.samples, self.unit_of, strict=True):
            if not sample.ok:
                continue
            found = seconds_of(sample, metric)
            if found is None:
                missing += 1
                continue
            seconds.extend(found)
            units.extend([unit] * len(found))
        return Values(np.array(seconds, dtype=np.float64), np.array(units, dtype=np.int64), missing)


def unit_logs(values: Values, units: int) -> Floats:
    """Mean log of each unit's seconds, shape (units,); NaN where it has none. Zero counts as a nanosecond."""
    logs = np.log(np.maximum(values.seconds, 1e-9))
    count = np.bincount(values.units, minlength=units)
    total = np.bincount(values.units, weights=logs, minlength=units)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def seconds_of(sample: Sample, metric: str) -> list[float] | None:
    """The values of one request; None when they are missing or cannot be."""
    found: list[float]
    if metric == "itl":
        times, tokens = sample.chunk_times, sample.chunk_tokens
        if (
            not times
            or len(times) != len(tokens)
            or not all(_number(count) and count > 0 for count in tokens)
        ):
            return None
        if not all(_number(stamp) for stamp in times):
            return None
        found = sample.gaps()
    else:
        value = getattr(sample, metric)
        if not _number(value):
            return None
        found = [value] if value > 0 else [math.nan]  # no answer takes no time at all
    return found if all(math.isfinite(value) and value >= 0 for value in found) else None


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def split_arms(samples: Sequence[Sample]) -> dict[str, Arm]:
    """Arms with units to draw: pairs, when every request of both has one; else single requests, in order."""
    ordered = sorted(samples, key=lambda sample: (sample.run, sample.started))
    names = sorted({sample.arm for sample in ordered})
    paired = len(names) > 1 and all(sample.pair is not None for sample in ordered)
    pairs: dict[tuple[int, int], int] = {}
    arms = {}
    for sample in ordered:
        if paired and sample.pair is not None:
            pairs.setdefault((sample.run, sample.pair), len(pairs))
    for name in names:
        own = tuple(sample for sample in ordered if sample.arm == name)
        if paired:
            unit_of = tuple(pairs[sample.run, sample.pair] for sample in own if sample.pair is not None)
            arms[name] = Arm(own, unit_of, len(pairs), paired=True)
        else:
            arms[name] = Arm(own, tuple(range(len(own))), len(own), paired=False)
    return arms


def disagreement(summary: Mapping[str, Any], arms: Mapping[str, Arm]) -> str:
    """How the summary and the samples contradict each other; empty if they do not.

    A lost sample looks like a request that never was: only the count, written apart, gives it away.
    """
    for name, figures in (summary.get("arms") or {}).items():
        arm = arms.get(name)
        seen = (
            {"requests": len(arm.samples), "succeeded": arm.succeeded, "censored": arm.censored}
            if arm
            else {"requests": 0, "succeeded": 0, "censored": 0}
        )
        for key, count in seen.items():
            if figures.get(key) != count:
                return f"the summary says {figures.get(key)} {key} of the {name}, the samples say {count}"
    unknown = sorted(set(arms) - set(summary.get("arms") or {}))
    return f"the summary does not know the arm {unknown[0]}" if unknown else ""
