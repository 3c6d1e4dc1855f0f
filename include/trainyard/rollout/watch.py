"""The canary watched while it is measured: alarm as soon as the evidence is there, at no cost in errors.

`observe` may be asked after every request; see `evidence` for why that raises no false alarms. It only ever
stops a canary: promotion waits for the size that was declared.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainyard.bench.samples import Sample
from trainyard.rollout import evidence
from trainyard.rollout.chance import Floats, Ints
from trainyard.rollout.measured import seconds_of
from trainyard.rollout.verdict import COMPARED, Check, Objectives, say_time

NOTHING = 1e-9  # seconds: what a time of zero counts as
FEWEST = 10  # pairs before any alarm: the first requests to a server say little of the rest
# Of the alpha. A server that is slower shows it in every metric's body; a tail or errors come alone.
SHARES = {"body": 0.6, "tail": 0.2, "errors": 0.2}


@dataclass(frozen=True)
class Watch:
    """pairs: how many were looked at. alarm: after how many the alarm came; None: it did not.

    worth: the greatest of the bet so far; 1 / alpha raises the alarm. blamed: what it won with, such as
    `ttft (body)`. seen: the same in words, with the amounts of the pairs until then.
    """

    pairs: int
    alarm: int | None
    worth: float
    needed: float
    blamed: tuple[str, ...]
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paired:
    """Columns of pairs in order of completion, shape (..., pairs); see `evidence`.

    times: canary's and allowed seconds by metric. failed: 1 or 0 of the canary and, if any, the baseline.
    base: the baseline's seconds by metric, for words only.
    """

    times: dict[str, tuple[Floats, Floats]]
    failed: tuple[Floats, Floats | None]
    base: Mapping[str, Floats] = field(default_factory=dict)

    def first(self, pairs: int) -> Paired:
        ours, theirs = self.failed
        return Paired(
            {
                metric: (own[..., :pairs], allowed[..., :pairs])
                for metric, (own, allowed) in self.times.items()
            },
            (ours[..., :pairs], theirs[..., :pairs] if theirs is not None else None),
            {metric: seconds[..., :pairs] for metric, seconds in self.base.items()},
        )


def observe(samples: Sequence[Sample], objectives: Objectives) -> Watch | None:
    """None: nothing can be told yet. Answers that are still on their way need not be there."""
    watcher = Watcher(objectives, paired=any(sample.arm == "baseline" for sample in samples))
    watcher.add(samples)
    return watcher.look()


class Watcher:
    """`observe` for samples that come bit by bit: each is read once.

    paired: there is a baseline; without one only errors can be watched.
    """

    def __init__(self, objectives: Objectives, *, paired: bool) -> None:
        self._objectives, self._paired = objectives, paired
        self._metrics = [metric for metric in COMPARED if paired and metric in objectives.max_ratio]
        self._missing: set[str] = set()
        self._halves: dict[tuple[int, int], dict[str, Sample]] = {}
        self._arms = ("canary", "baseline") if paired else ("canary",)
        # Run, end, failed (an arm each), seconds (a metric and arm each): one row a pair.
        self._width = 2 + len(self._arms) + 2 * len(self._metrics)
        self._rows = array("d")

    def add(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            if sample.censored:
                continue
            if not self._paired:
                self._append((sample,))
            elif sample.pair is not None:
                pair = self._halves.setdefault((sample.run, sample.pair), {})
                pair[sample.arm] = sample
                if len(pair) == len(self._arms):
                    del self._halves[sample.run, sample.pair]
                    self._append(tuple(pair[arm] for arm in self._arms))

    def look(self) -> Watch | None:
        paired = self._columns()
        if paired is None:
            return None
        worth, parts = accumulate(paired, self._objectives.max_error_rate)
        needed = 1 / (1 - self._objectives.confidence)
        alarm = int(first_alarm(worth, needed)) or None
        at = alarm - 1 if alarm else len(worth) - 1
        by_worth = sorted(parts, key=lambda name: -parts[name][at])
        convinced = tuple(name for name in by_worth if parts[name][at] >= np.log(needed))
        greatest = float(np.exp(min(worth[at] if alarm else worth.max(), 700.0)))
        if alarm is None:
            return Watch(len(worth), None, greatest, needed, ())
        blamed = convinced or tuple(by_worth[:1])
        words = _amounts(blamed, paired.first(alarm), self._objectives)
        return Watch(len(worth), alarm, greatest, needed, blamed, words)

    def _append(self, row: tuple[Sample, ...]) -> None:
        ended = max(sample.started + (sample.e2e or 0.0) for sample in row)
        self._rows.extend((float(row[0].run), ended, *(float(not sample.ok) for sample in row)))
        for metric in self._metrics:
            self._rows.extend(self._seconds(row, metric))

    def _seconds(self, row: tuple[Sample, ...], metric: str) -> list[float]:
        """Seconds of both arms, NaN where either failed. A metric that is missing once is no evidence."""
        seconds = []
        for sample in row:
            found = seconds_of(sample, metric) if all(each.ok for each in row) else []
            if found is None:
                self._missing.add(metric)
            seconds.append(max(sum(found) / len(found), NOTHING) if found else np.nan)
        return seconds if np.isfinite(seconds).all() else [np.nan] * len(row)

    def _columns(self) -> Paired | None:
        if not self._rows:
            return None
        table = np.array(self._rows, dtype=np.float64).reshape(-1, self._width).T
        table = table[:, np.lexsort((table[1], table[0]))]
        failed, times, base = table[2 : 2 + len(self._arms)], {}, {}
        for number, metric in enumerate(self._metrics):
            if metric not in self._missing:
                ours, theirs = table[2 + len(self._arms) + 2 * number :][:2]
                ratio = self._objectives.max_ratio[metric]
                floor = self._objectives.floor_seconds.get(metric, 0.0)
                times[metric] = (ours, np.maximum(theirs * ratio, theirs + floor))
                base[metric] = theirs
        return Paired(times, (failed[0], failed[1] if self._paired else None), base)


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


def _amounts(blamed: Sequence[str], paired: Paired, objectives: Objectives) -> tuple[str, ...]:
    """What was seen of each that is blamed. A tail is not told beside a slow body, which slows it too."""
    words = []
    for name in blamed:
        metric, _, part = name.partition(" ")
        if metric == "errors":
            words.append(_failures(*paired.failed, objectives.max_error_rate))
            continue
        margin = objectives.max_ratio[metric]
        if part == "(tail)":
            if f"{metric} (body)" not in blamed:
                more, less = evidence.slow_alone(*paired.times[metric])
                words.append(
                    f"{metric} tail: the slow one of a pair was the canary's {more} times of {more + less}; "
                    f"half would be chance ({margin:g} x allowed)"
                )
            continue
        ours, theirs = (
            float(np.nanquantile(seconds, 0.5)) for seconds in (paired.times[metric][0], paired.base[metric])
        )
        ratio = f"{ours / theirs:.2f} x" if theirs > NOTHING else "more than"
        words.append(
            f"{metric} p50 {say_time(ours)} is {ratio} the baseline's {say_time(theirs)}; "
            f"allowed {margin:g} x"
        )
    return tuple(words)


def _failures(ours: Floats, theirs: Floats | None, allowed: float) -> str:
    text = f"{ours.sum():.0f} of {len(ours)} requests failed ({ours.mean():.1%})"
    if theirs is not None:
        text += f", the baseline's {theirs.sum():.0f} ({theirs.mean():.1%})"
    return f"{text}; allowed {allowed:.1%}"


def check(watch: Watch | None, stopped: Mapping[str, Any] | None = None) -> list[Check]:
    """What the judge says of it: an alarm is a failure. Silence proves nothing and hinders nothing.

    stopped: what the load test says of its own early end, if it came to one.
    """
    if watch is None:
        return []
    if watch.alarm is None:
        text = f"no alarm in {watch.pairs} pairs (evidence {watch.worth:.1f}, {watch.needed:.0f} needed)"
    else:
        text = (
            f"alarm after {watch.alarm} pairs: {'; '.join(watch.seen)} "
            f"(evidence {watch.worth:.3g}, {watch.needed:.0f} needed)"
        )
        if stopped:
            text += f"; the load test was stopped after {watch.pairs} pairs"
    return [
        Check(
            metric="watch", statistic="e-value", kind="watch", outcome="fail" if watch.alarm else "pass",
            text=text, arm_value=watch.worth, limit=watch.needed,
        )
    ]  # fmt: skip
