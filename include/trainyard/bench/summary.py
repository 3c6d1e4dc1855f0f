"""Samples added up. Percentiles are exact: nearest rank over the raw values, each a value that was seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from trainyard.bench.goodput import Limits, goodput
from trainyard.bench.samples import Sample

# 2 added input tokens a second, lengths, goodput and the sweep to 1, and changed nothing: readers of figures
# take what is there.
SCHEMA = "trainyard.load/2"
QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
METRICS = ("ttft", "itl", "tpot", "e2e", "ttft_from_intended", "e2e_from_intended")


def quantile(ordered: Sequence[float], q: float) -> float:
    """The smallest value that at least `q` of them do not exceed. `ordered` ascends and is not empty."""
    # The subtraction forgives q * n being a hair above a whole number in binary.
    return ordered[max(0, math.ceil(q * len(ordered) - 1e-9) - 1)]


def values(samples: Iterable[Sample], metric: str) -> list[float]:
    """Seconds of one metric over the successful requests; `itl` has one value a token gap."""
    found: list[float] = []
    for sample in samples:
        if not sample.ok:
            continue
        if metric == "itl":
            found.extend(sample.gaps())
            continue
        value = getattr(sample, metric)
        if value is not None:
            found.append(value)
    return found


def distribution(numbers: Sequence[float]) -> dict[str, float | int]:
    """count, mean, min, max and percentiles; only `count` when there is nothing."""
    if not numbers:
        return {"count": 0}
    ordered = sorted(numbers)
    figures: dict[str, float | int] = {
        "count": len(ordered),
        "mean": math.fsum(ordered) / len(ordered),
        "min": ordered[0],
        "max": ordered[-1],
    }
    figures |= {name: quantile(ordered, q) for name, q in QUANTILES.items()}
    return {key: round(value, 9) for key, value in figures.items()}


def seconds_of(samples: Sequence[Sample]) -> float:
    """From the first send to the last end; of several runs the sum, since their clocks are not the same."""
    runs: dict[int, list[float]] = {}
    for sample in samples:
        first, last = sample.started, sample.started + (sample.e2e or 0.0)
        span = runs.setdefault(sample.run, [first, last])
        span[:] = min(span[0], first), max(span[1], last)
    return math.fsum(last - first for first, last in runs.values())


def summarize_arm(samples: Sequence[Sample], limits: Limits | None = None) -> dict[str, Any]:
    """One arm. `failures` counts by kind; `censored` is apart: nobody knows how those would have ended.

    Tokens and rates are of the requests that succeeded. `goodput` is there where there are limits.
    """
    kinds = Counter(sample.error for sample in samples if not sample.ok and not sample.censored)
    good = [sample for sample in samples if sample.ok]
    span = seconds_of(samples)
    prompt = [sample.prompt_tokens or 0 for sample in good]
    output = [sample.output_tokens or 0 for sample in good]
    return {
        "requests": len(samples),
        "succeeded": len(good),
        "failed": sum(kinds.values()),
        "failures": dict(sorted(kinds.items())),
        "censored": sum(sample.censored for sample in samples),
        "seconds": round(span, 6),
        "prompt_tokens": sum(prompt),
        "output_tokens": sum(output),
        "input_tokens_per_second": _rate(sum(prompt), span),
        "output_tokens_per_second": _rate(sum(output), span),
        "requests_per_second": _rate(len(good), span),
        "lengths": {"prompt": distribution(prompt), "output": distribution(output)},
        **({"goodput": goodput(samples, limits, span)} if limits else {}),
        **{metric: distribution(values(good, metric)) for metric in METRICS},
    }


def summarize(
    samples: Sequence[Sample], arms: Iterable[str], limits: Limits | None = None
) -> dict[str, dict[str, Any]]:
    """Every arm that was asked for, also one without a single sample."""
    return {arm: summarize_arm([sample for sample in samples if sample.arm == arm], limits) for arm in arms}


def _rate(count: float, seconds: float) -> float:
    return round(count / seconds, 3) if seconds else 0.0
