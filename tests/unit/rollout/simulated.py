"""Load tests that never ran: samples with the noise of a real one, by a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainyard.bench.samples import Sample
from trainyard.bench.summary import SCHEMA, summarize


def simulate(
    seed: int,
    *,
    pairs: int = 40,
    slow: float = 1.0,
    ttft: float = 0.06,
    itl: float = 0.01,
    tokens: int = 32,
    sigma: float = 0.2,
    spikes: float = 0.03,
    errors: float = 0.0,
    baseline_errors: float = 0.0,
    baseline: bool = True,
) -> tuple[dict[str, Any], list[Sample]]:
    """Summary and samples. Noise: log-normal, a drift that both arms share, spikes of 2 to 5 times."""
    random = np.random.default_rng(seed)
    drift = np.exp(np.cumsum(random.normal(0, 0.05, pairs)) * 0.5)
    samples = []
    for pair in range(pairs):
        for place, arm in enumerate(["canary", "baseline"] if baseline else ["canary"]):
            factor = drift[pair] * (slow if arm == "canary" else 1.0)
            spike = random.uniform(2, 5) if random.random() < spikes else 1.0
            first = ttft * factor * spike * float(np.exp(random.normal(0, sigma)))
            gaps = (
                itl
                * factor
                * np.exp(random.normal(0, sigma, tokens - 1))
                * float(np.exp(random.normal(0, 0.05)))
            )
            gaps[random.random(tokens - 1) < spikes] *= 3
            times = first + np.concatenate([[0.0], np.cumsum(gaps)])
            failed = random.random() < (errors if arm == "canary" else baseline_errors)
            samples.append(
                Sample(
                    arm=arm,
                    pair=pair,
                    started=pair * 0.4 + place * 0.2,
                    ttft=None if failed else first,
                    e2e=float(times[-1]),
                    status=500 if failed else 200,
                    prompt_tokens=64,
                    output_tokens=None if failed else tokens,
                    chunks=0 if failed else tokens,
                    chunk_times=() if failed else tuple(float(time) for time in times),
                    chunk_tokens=() if failed else (1,) * tokens,
                    ok=not failed,
                    error="http_5xx" if failed else "",
                    finish_reason="" if failed else "length",
                )
            )
    return summary_of(samples), samples


def summary_of(samples: list[Sample]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "arms": summarize(samples, sorted({sample.arm for sample in samples})),
        "generator": {"valid": True, "reasons": [], "loop_lag_p99_seconds": 0.001},
        "split": None,
    }
