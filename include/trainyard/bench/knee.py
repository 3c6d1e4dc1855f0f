"""Where a server's answers stop keeping up: the stages of a sweep, one by one, and the knee among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainyard.bench.arrivals import Stage
from trainyard.bench.samples import Sample
from trainyard.bench.summary import quantile

KEEPS_UP = 0.95  # of the requests must succeed, and of the rate be served
SLOWER = 3.0  # than the first stage is too slow, where no limit is given


@dataclass(frozen=True)
class Step:
    """One stage. offered, served: requests a second, those due in it and those ended well in its time.
    ttft_p95: seconds from when they were due; None without a success. failed: share of the requests."""

    offered: float
    served: float
    ttft_p95: float | None
    failed: float
    good: bool = False


def steps(samples: Sequence[Sample], stages: Sequence[Stage], *, limit: float | None = None) -> list[Step]:
    """limit: seconds that p95 of TTFT may take; None: three times that of the first stage."""
    if not samples:
        return []
    begin = min(sample.started + sample.intended for sample in samples)
    found: list[Step] = []
    for stage in stages:
        due = [s for s in samples if begin <= s.started + s.intended < begin + stage.seconds]
        good = [s for s in due if s.ok]
        # Ends are shifted by one service time, so a rate that is kept counts in full.
        service = quantile(sorted(s.e2e or 0.0 for s in good), 0.5) if good else 0.0
        ended = [s for s in samples if s.ok and begin <= s.started + (s.e2e or 0.0) - service]
        served = sum(s.started + (s.e2e or 0.0) - service < begin + stage.seconds for s in ended)
        firsts = sorted(s.ttft_from_intended for s in good if s.ttft_from_intended is not None)
        p95 = quantile(firsts, 0.95) if firsts else None
        bound = limit if limit is not None else _bound(found, p95)
        step = Step(
            offered=round(len(due) / stage.seconds, 3),
            served=round(served / stage.seconds, 3),
            ttft_p95=p95,
            failed=1 - len(good) / len(due) if due else 0.0,
        )
        kept = len(due) > 0 and len(good) >= KEEPS_UP * len(due) and step.served >= KEEPS_UP * step.offered
        fast = p95 is not None and bound is not None and p95 <= bound
        found.append(Step(step.offered, step.served, p95, step.failed, good=kept and fast))
        begin += stage.seconds
    return found


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
