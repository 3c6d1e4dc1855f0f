"""The canary watched while it is measured: alarm as soon as the evidence is there, at no cost in errors.

`observe` may be asked after every request; see `evidence` for why that raises no false alarms. It only ever
stops a canary: promotion waits for the size that was declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainyard.bench.samples import Sample
from trainyard.rollout import evidence
from trainyard.rollout.chance import Floats, Ints
from trainyard.rollout.measured import seconds_of
from trainyard.rollout.verdict import COMPARED, Check, Objectives

FEWEST = 10  # pairs before any alarm: the first requests to a server say little of the rest
# Of the alpha. A server that is slower shows it in every metric's body; a tail or errors come alone.
SHARES = {"body": 0.6, "tail": 0.2, "errors": 0.2}


@dataclass(frozen=True)
class Watch:
    """pairs: how many were looked at. alarm: after how many the alarm came; None: it did not.

    worth: the greatest of the bet so far; 1 / alpha raises the alarm. blamed: what it won with, such as
    `ttft (body)`.
    """

    pairs: int
    alarm: int | None
    worth: float
    needed: float
    blamed: tuple[str, ...]


@dataclass(frozen=True)
class Paired:
    """Columns of pairs in order of completion, shape (..., pairs); see `evidence`.

    times: canary's and allowed seconds by metric. failed: 1 or 0 of the canary and, if any, the baseline.
    """

    times: dict[str, tuple[Floats, Floats]]
    failed: tuple[Floats, Floats | None]


def observe(samples: Sequence[Sample], objectives: Objectives) -> Watch | None:
    """None: nothing can be told yet. Answers that are still on their way need not be there."""
    paired = _pair_up(samples, objectives)
    if paired is None:
        return None
    worth, parts = accumulate(paired, objectives.max_error_rate)
    needed = 1 / (1 - objectives.confidence)
    alarm = int(first_alarm(worth, needed)) or None
    at = alarm - 1 if alarm else len(worth) - 1
    by_worth = sorted(parts, key=lambda name: -parts[name][at])
    convinced = tuple(name for name in by_worth if parts[name][at] >= np.log(needed)) or tuple(by_worth[:1])
    greatest = float(np.exp(min(worth[at] if alarm else worth.max(), 700.0)))
    return Watch(len(worth), alarm, greatest, needed, convinced if alarm else ())


def first_alarm(worth: Floats, needed: float) -> Ints:
    """After how many pairs the alarm came, 0 for never; shape of `worth` less its last axis."""
    over = worth >= np.log(needed)
    over[..., : FEWEST - 1] = False
    found: Ints = np.where(over.any(axis=-1), over.argmax(axis=-1) + 1, 0)
    return found


def accumulate(paired: Paired, allowed_rate: float) -> tuple[Floats, dict[str, Floats]]:
    """log of the running worth of all evidence together, and of each part."""
    parts, weights = {}, []
    for metric, (ours, allowed) in paired.times.items():
        parts[f"{metric} (body)"] = evidence.body(np.log(ours) - np.log(allowed))
        parts[f"{metric} (tail)"] = evidence.tail(ours, allowed)
        weights += [SHARES["body"] / len(paired.times), SHARES["tail"] / len(paired.times)]
    parts["errors"] = evidence.errors(*paired.failed, allowed_rate)
    weights.append(1 - sum(weights))
    return evidence.mean_worth(list(parts.values()), weights), parts


def check(watch: Watch | None) -> list[Check]:
    """What the judge says of it: an alarm is a failure. Silence proves nothing and hinders nothing."""
    if watch is None:
        return []
    if watch.alarm is None:
        text = f"no alarm in {watch.pairs} pairs (evidence {watch.worth:.1f}, {watch.needed:.0f} needed)"
    else:
        text = (
            f"alarm after {watch.alarm} pairs: {', '.join(watch.blamed)} beyond what is allowed "
            f"(evidence {watch.worth:.3g}, {watch.needed:.0f} needed)"
        )
    return [
        Check(
            metric="watch", statistic="e-value", kind="watch", outcome="fail" if watch.alarm else "pass",
            text=text, arm_value=watch.worth, limit=watch.needed,
        )
    ]  # fmt: skip


def _pair_up(samples: Sequence[Sample], objectives: Objectives) -> Paired | None:
    arms = {sample.arm for sample in samples}
    rows: list[tuple[Sample, ...]]
    if "baseline" in arms:
        found: dict[tuple[int, int], dict[str, Sample]] = {}
        for sample in samples:
            if sample.pair is not None and not sample.censored:
                found.setdefault((sample.run, sample.pair), {})[sample.arm] = sample
        rows = [(pair["canary"], pair["baseline"]) for pair in found.values() if len(pair) == 2]
    else:
        rows = [(sample,) for sample in samples if not sample.censored]
    if not rows:
        return None
    rows.sort(key=lambda row: (row[0].run, max(sample.started + (sample.e2e or 0.0) for sample in row)))
    failed = [np.array([float(not sample.ok) for sample in arm]) for arm in zip(*rows, strict=True)]
    times = {}
    if "baseline" in arms:
        for metric in (name for name in COMPARED if name in objectives.max_ratio):
            columns = _columns(rows, metric)
            if columns is not None:
                ours, theirs = columns
                ratio, floor = objectives.max_ratio[metric], objectives.floor_seconds.get(metric, 0.0)
                times[metric] = (ours, np.maximum(theirs * ratio, theirs + floor))
    return Paired(times, (failed[0], failed[1] if len(failed) > 1 else None))


def _columns(rows: Sequence[tuple[Sample, ...]], metric: str) -> tuple[Floats, Floats] | None:
    """Seconds of both arms, NaN where either failed; None where a metric is missing: that is not evidence."""
    columns = np.full((2, len(rows)), np.nan)
    for number, row in enumerate(rows):
        if not all(sample.ok for sample in row):
            continue
        for arm, sample in enumerate(row):
            found = seconds_of(sample, metric)
            if found is None:
                return None
            if found:
                columns[arm, number] = max(sum(found) / len(found), 1e-9)
    columns[:, ~np.isfinite(columns).all(axis=0)] = np.nan
    return columns[0], columns[1]
