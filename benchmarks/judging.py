"""Releases that never ran: what a load test would have measured, by a seed. docs/judging.md tells the noise.

All times are log-normal with SIGMA; both arms share a drift; each has noise of its own that lasts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.model import Bar, Figure
from benchmarks.statistics import spread
from trainyard.bench.samples import Sample
from trainyard.bench.summary import SCHEMA, summarize
from trainyard.rollout.chance import Floats, Ints, binomial_at_least
from trainyard.rollout.judge import judge
from trainyard.rollout.verdict import COMPARED, Objectives
from trainyard.rollout.watch import Paired, accumulate, first_alarm

SIGMA = 0.5  # of log times, an arm
ALIKE = 0.5  # correlation of one request's metrics with each other
MEDIANS = {"ttft": 0.2, "itl": 0.02, "e2e": 1.0}
RANDOM_WALK, WAVE = 0.03, 0.3  # of the drift that both arms share, in log units a pair; three waves a run
GAPS = 3  # token gaps of a request


@dataclass(frozen=True)
class Canary:
    """How the canary differs. ratio: of all its times. only: of this metric alone. stretch: its sigma, in
    units of SIGMA. slow: share of requests that take five times as long. own: share of each arm's variance
    that lasts (correlation `memory` from pair to pair). errors: of both arms."""

    ratio: float = 1.0
    only: str | None = None
    stretch: float = 1.0
    slow: float = 0.0
    own: float = 0.2
    memory: float = 0.5
    drift: bool = True
    errors: float = 0.005


def log_times(random: np.random.Generator, runs: int, pairs: int, canary: Canary) -> dict[str, list[Floats]]:
    """Log seconds by metric, of canary and baseline, shape (runs, pairs)."""
    shared = np.zeros((runs, pairs))
    if canary.drift:
        shared = np.cumsum(random.normal(0, RANDOM_WALK, (runs, pairs)), axis=1)
        turn = np.arange(pairs) / pairs * 3 + random.random((runs, 1))
        shared += WAVE * np.sin(2 * np.pi * turn)
    found: dict[str, list[Floats]] = {metric: [] for metric in COMPARED}
    for arm in ("canary", "baseline"):
        ours = arm == "canary"
        lasting = _lasting(random, runs, pairs, canary.memory) * math.sqrt(canary.own)
        common = random.normal(0, 1, (runs, pairs))
        slow = (random.random((runs, pairs)) < canary.slow) * math.log(5) if ours else 0.0
        for metric in COMPARED:
            single = random.normal(0, 1, (runs, pairs))
            noise = math.sqrt(ALIKE) * common + math.sqrt(1 - ALIKE) * single
            noise = lasting + math.sqrt(1 - canary.own) * noise
            touched = ours and canary.only in (None, metric)
            factor = math.log(canary.ratio) if touched else 0.0
            width = SIGMA * (canary.stretch if touched else 1.0)
            found[metric].append(math.log(MEDIANS[metric]) + shared + factor + width * noise + slow)
    return found


def _lasting(random: np.random.Generator, runs: int, pairs: int, memory: float) -> Floats:
    noise = random.normal(0, 1, (runs, pairs))
    for at in range(1, pairs):
        noise[:, at] = memory * noise[:, at - 1] + math.sqrt(1 - memory**2) * noise[:, at]
    return noise


def alarms(seed: int, runs: int, pairs: int, canary: Canary, margin: float, alpha: float = 0.05) -> Ints:
    """After how many pairs the watch raised the alarm, looking after every one; 0: never."""
    random = np.random.default_rng(seed)
    found = []
    for batch in range(0, runs, 250):
        size = min(250, runs - batch)
        times = {
            metric: (np.exp(ours), np.exp(theirs) * margin)
            for metric, (ours, theirs) in log_times(random, size, pairs, canary).items()
        }
        failed = [(random.random((size, pairs)) < canary.errors).astype(np.float64) for _ in range(2)]
        worth, _ = accumulate(Paired(times, (failed[0], failed[1])), 0.01)
        found.append(first_alarm(worth, 1 / alpha))
    return np.concatenate(found)


def verdict(seed: int, pairs: int, canary: Canary, objectives: Objectives) -> str:
    """What the judge says of a whole load test."""
    random = np.random.default_rng(seed)
    times = {
        metric: [np.exp(arm[0]) for arm in arms]
        for metric, arms in log_times(random, 1, pairs, canary).items()
    }
    samples = []
    for pair in range(pairs):
        for place, arm in enumerate(("canary", "baseline")):
            ttft, itl, e2e = (float(times[metric][place][pair]) for metric in COMPARED)
            gaps = itl * np.exp(random.normal(-0.02, 0.2, GAPS))
            stamps = tuple(float(stamp) for stamp in ttft + np.array([0.0, *np.cumsum(gaps)]))
            samples.append(
                Sample(
                    arm=arm, pair=pair, started=pair * 0.5 + place * 0.25, ttft=ttft, e2e=e2e, ok=True,
                    status=200, chunks=GAPS + 1, chunk_times=stamps, chunk_tokens=(1,) * (GAPS + 1),
                    output_tokens=GAPS + 1,
                )
            )  # fmt: skip
    summary = {
        "schema": SCHEMA,
        "arms": summarize(samples, ("canary", "baseline")),
        "generator": {"valid": True},
    }
    return judge(summary, samples, objectives, baseline_expected=True, seed=seed).outcome


def objectives(margin: float, looks: int = 1) -> Objectives:
    """SLOs that are never in the way: what the comparison finds is what is asked."""
    return Objectives(
        ttft_p95_seconds=1e6, itl_p95_seconds=1e6, max_ratio=dict.fromkeys(COMPARED, margin), looks=looks,
        floor_seconds={}, min_samples=20,
    )  # fmt: skip


def upper_bound(count: int, trials: int, confidence: float = 0.95) -> float:
    """Of a rate of which `count` of `trials` were seen (Clopper and Pearson)."""
    low, high = count / trials, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if 1 - binomial_at_least(count + 1, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def figure(name: str, value: float, unit: str = "share", bar: Bar | None = None) -> Figure:
    return Figure(name, unit, spread([value]), bar)
