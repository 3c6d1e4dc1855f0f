"""Where a server's answers stop keeping up: the stages of a sweep, one by one, and the knee among them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any

from trainyard.bench.arrivals import Arrivals, Stage
from trainyard.bench.samples import Sample
from trainyard.bench.summary import quantile

KEEPS_UP = 0.95  # of the requests must succeed, and of the rate be served
SLOWER = 3.0  # than the first stage is too slow, where no limit is given
ROUNDING = 1e-6  # of the times in samples: the first request of a stage belongs to it


@dataclass(frozen=True)
class Step:
    """One stage. offered, served: requests a second, those due in it and those ended well in its time.
    ttft_p95: seconds from when they were due; None without a success. failed: share of the requests.
    tokens_per_second: made by those that ended in its time. good: it kept up."""

    offered: float
    served: float
    ttft_p95: float | None
    failed: float
    good: bool = False
    tokens_per_second: float | None = None


def sweep(
    samples: Sequence[Sample],
    arms: Iterable[str],
    schedule: Arrivals | None,
    *,
    seed: object,
    limit: float | None = None,
) -> dict[str, dict[str, Any]]:
    """What a summary says of a sweep, an arm: `steps`, `knee` (a step or None), `limit`. Empty if the load
    was none: a closed loop, a trace or a single stage. Of one that was ended early, only the stages that
    it went through: the last one's rate would be of what it had sent by then over all of its time."""
    if schedule is None or len(schedule.stages) < 2:
        return {}
    moments = schedule.schedule(seed)
    first = next(iter(moments), 0.0)
    found = {}
    for arm in arms:
        own = [sample for sample in samples if sample.arm == arm]
        whole = _in_full(sum(sample.turn == 0 for sample in own), moments, schedule.stages)
        climbed = steps(own, whole, limit=limit, first=first)
        top = knee(climbed)
        bound = limit if limit is not None else _bound(climbed, None)
        found[arm] = {
            "steps": [asdict(step) for step in climbed],
            "knee": asdict(top) if top else None,
            "limit": bound,
        }
    return found


def steps(
    samples: Sequence[Sample], stages: Sequence[Stage], *, limit: float | None = None, first: float = 0.0
) -> list[Step]:
    """limit: seconds that p95 of TTFT may take; None: three times that of the first stage. first: when the
    schedule has its first request."""
    if not samples:
        return []
    begin = min(sample.started + sample.intended for sample in samples) - first - ROUNDING
    found: list[Step] = []
    for stage in stages:
        due = [s for s in samples if begin <= s.started + s.intended < begin + stage.seconds]
        good = [s for s in due if s.ok]
        # Ends are shifted by one service time, so a rate that is kept counts in full.
        service = quantile(sorted(s.e2e or 0.0 for s in good), 0.5) if good else 0.0
        ended = [s for s in samples if s.ok and begin <= s.started + (s.e2e or 0.0) - service]
        served = [s for s in ended if s.started + (s.e2e or 0.0) - service < begin + stage.seconds]
        firsts = sorted(s.ttft_from_intended for s in good if s.ttft_from_intended is not None)
        p95 = quantile(firsts, 0.95) if firsts else None
        bound = limit if limit is not None else _bound(found, p95)
        step = Step(
            offered=round(len(due) / stage.seconds, 3),
            served=round(len(served) / stage.seconds, 3),
            ttft_p95=p95,
            failed=round(1 - len(good) / len(due), 6) if due else 0.0,
            tokens_per_second=round(sum(s.output_tokens or 0 for s in served) / stage.seconds, 3),
        )
        kept = len(due) > 0 and len(good) >= KEEPS_UP * len(due) and step.served >= KEEPS_UP * step.offered
        fast = p95 is not None and bound is not None and p95 <= bound
        found.append(replace(step, good=kept and fast))
        begin += stage.seconds
    return found


def _in_full(sent: int, moments: Sequence[float], stages: Sequence[Stage]) -> list[Stage]:
    """The stages of which all was sent. Counted, not timed: pods may begin some milliseconds apart."""
    if sent >= len(moments):
        return list(stages)
    ends = accumulate(stage.seconds for stage in stages)
    return [stage for stage, end in zip(stages, ends, strict=True) if bisect_left(moments, end) <= sent]


def knee(found: Sequence[Step]) -> Step | None:
    """The last step before the first that is not good; None if the first is not."""
    last = None
    for step in found:
        if not step.good:
            break
        last = step
    return last


def _bound(found: Sequence[Step], p95: float | None) -> float | None:
    first = found[0].ttft_p95 if found else p95
    return None if first is None else SLOWER * first
