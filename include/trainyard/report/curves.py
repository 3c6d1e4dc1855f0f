"""What plots and the report's JSON show of samples: few points, each of them exact."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainyard.bench.samples import Sample
from trainyard.bench.summary import quantile, values

POINTS = 160  # of a curve; more than pixels can show
WINDOWS = 40  # of a timeline, at most
WINDOW_REQUESTS = 10  # a median of fewer jumps about
NOTHING = 1e-5  # seconds: tokens of one packet have none between them, and no ratio
FASTEST = 0.1  # part of a distribution that is not compared
GAP = 0.02  # of the whole, between two runs


@dataclass(frozen=True)
class Window:
    """A slice of the run. at: its middle, seconds from the start. median, worst: of what succeeded in it;
    None where nothing did."""

    at: float
    requests: int
    failed: int
    median: float | None
    worst: float | None


def by_arm(samples: Sequence[Sample]) -> Mapping[str, list[Sample]]:
    """The baseline first, so that the canary is drawn over it."""
    arms: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: (sample.arm != "baseline", sample.arm)):
        arms.setdefault(sample.arm, []).append(sample)
    return arms


def sorted_values(samples: Sequence[Sample], metric: str) -> dict[str, list[float]]:
    """Ascending, an arm; arms without any are left out."""
    arms = {name: sorted(values(own, metric)) for name, own in by_arm(samples).items()}
    return {name: numbers for name, numbers in arms.items() if numbers}


def ranks(count: int) -> list[int]:
    """Ranks (from 1) that a distribution is drawn by: evenly over all, and ever closer towards the slowest,
    whose last hundred are all there."""
    even = {math.ceil(count * step / POINTS) for step in range(1, POINTS + 1)}
    tail = {count - math.floor(1.1**step) for step in range(200) if 1.1**step < count}
    return sorted(even | {count - rank for rank in range(min(100, count))} | tail | {1, count})


def distribution(ordered: Sequence[float]) -> list[tuple[float, float]]:
    """(share at most that slow, seconds), ascending."""
    return [(rank / len(ordered), ordered[rank - 1]) for rank in ranks(len(ordered))]


def ratios(
    canary: Sequence[float], baseline: Sequence[float], *, least: int = 5
) -> list[tuple[float, float]]:
    """(quantile, canary / baseline) of two ascending lists, while `least` values of each lie beyond."""
    few = min(len(canary), len(baseline))
    if few < 2 * least:
        return []
    ends = least / few
    shares = [ends + (1 - 2 * ends) * step / 100 for step in range(101)]
    # Evenly over the odds too: half of the points would else lie in the middle, where nothing happens.
    stretched = [1 / (1 + math.exp(-step / 8)) for step in range(-60, 61)]
    shares = sorted({round(share, 6) for share in shares + stretched if ends <= share <= 1 - ends})
    found = []
    for share in shares:
        below, above = quantile(baseline, share), quantile(canary, share)
        if min(below, above) > NOTHING:
            found.append((share, above / below))
    return [(share, ratio) for share, ratio in found if share >= FASTEST]


def offsets(samples: Sequence[Sample]) -> tuple[dict[int, float], float, list[float]]:
    """How runs, whose clocks have nothing in common, are laid end to end: what to add to `started` in each,
    the length of all, and where a run ends and the next begins."""
    spans: dict[int, tuple[float, float]] = {}
    for sample in samples:
        low, high = spans.get(sample.run, (sample.started, sample.started))
        spans[sample.run] = min(low, sample.started), max(high, sample.started)
    gap = GAP * sum(high - low for low, high in spans.values())
    shift: dict[int, float] = {}
    borders, at = [], 0.0
    for run in sorted(spans):
        if shift:
            borders.append(at - gap / 2)
        low, high = spans[run]
        shift[run] = at - low
        at += high - low + gap
    return shift, max(0.0, at - gap), borders


def windows(samples: Sequence[Sample], metric: str) -> list[Window]:
    """Of one arm, over the whole of its runs."""
    shift, length, _ = offsets(samples)
    count = max(1, min(WINDOWS, len(samples) // WINDOW_REQUESTS))
    width = length / count or 1.0
    slices: list[list[Sample]] = [[] for _ in range(count)]
    for sample in samples:
        slices[min(count - 1, int((sample.started + shift[sample.run]) / width))].append(sample)
    found = []
    for number, own in enumerate(slices):
        if own:
            good = sorted(values(own, metric))
            found.append(
                Window(
                    at=round((number + 0.5) * width, 3),
                    requests=len(own),
                    failed=sum(not sample.ok and not sample.censored for sample in own),
                    median=quantile(good, 0.5) if good else None,
                    worst=good[-1] if good else None,
                )
            )
    return found
