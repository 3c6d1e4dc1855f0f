"""Load tests whose truth is known: our generator and the peers' ways to read, against `benchmarks.truth`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.model import NotMeasured, Options
from benchmarks.truth import Truth, truth_server
from trainyard.bench.load import run_load
from trainyard.bench.samples import Sample
from trainyard.bench.summary import quantile
from trainyard.bench.workload import Workload

PROMPT_TOKENS = 64


@dataclass(frozen=True)
class Reading:
    """Of one run. errors: seconds that each TTFT is off, ascending; true: the mean true TTFT; gaps: mean of
    all inter-token seconds as measured over the mean as written; cpu: client's processor seconds an event."""

    errors: tuple[float, ...]
    true: float
    gaps: float
    cpu: float

    @property
    def bias(self) -> float:
        """Share of the true TTFT."""
        return abs(sum(self.errors) / len(self.errors)) / self.true

    @property
    def p99(self) -> float:
        """Seconds that all but one TTFT of a hundred are off at most, in either direction."""
        return quantile(sorted(abs(error) for error in self.errors), 0.99)


def ours(
    options: Options, workload: Mapping[str, Any], knobs: Mapping[str, Any], seed: int = 1
) -> tuple[list[Sample], dict[str, Any], list[Truth]]:
    """A run: samples, summary and what the server really did. Raises NotMeasured where requests fail."""
    described = Workload.from_dict({"prompt_tokens": PROMPT_TOKENS, **workload})
    with truth_server(options.scratch, **knobs) as server:
        samples, summary = run_load(model="m", arms={"canary": [server.url]}, workload=described, seed=seed)
        truths = server.truths()
    if bad := [sample for sample in samples if not sample.ok]:
        raise NotMeasured(f"{len(bad)} requests failed, the first: {bad[0].error} {bad[0].detail}")
    return samples, summary, truths


def cpu_seconds(summary: Mapping[str, Any]) -> float:
    """Of the processor, by the load generator."""
    generator = summary["generator"]
    return float(generator["cpu_share"] * generator["seconds"])


def our_reading(options: Options, streams: int, seconds: float, tokens: int, **knobs: Any) -> Reading:
    workload = {"concurrency": streams, "duration_seconds": seconds, "output_tokens": tokens}
    samples, summary, truths = ours(options, workload, knobs)
    events = sum(sample.chunks + 3 for sample in samples)  # and role, count, [DONE]
    found = [(sample, truths[sample.prompt_tokens or 0]) for sample in samples]
    return _reading(
        [(sample.started, sample.ttft or math.nan, sample.gaps(), truth) for sample, truth in found],
        cpu_seconds(summary) / events,
    )


def peers_reading(
    options: Options, path: str, streams: int, seconds: float, tokens: int, **knobs: Any
) -> Reading:
    """path: of `benchmarks.clients`."""
    with truth_server(options.scratch, **knobs) as server:
        words = [path, server.url, str(streams), str(seconds), str(tokens)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.clients", *words], capture_output=True, text=True
        )
        if done.returncode:
            raise NotMeasured(f"the path of {path} broke down: {done.stderr[-300:]}")
        found, truths = json.loads(done.stdout), server.truths()
    rows = found["rows"]
    return _reading(
        [(row["started"], row["ttft"], row["gaps"], truths[row["number"]]) for row in rows],
        found["cpu_seconds"] / sum(row["events"] for row in rows),
    )


def _reading(rows: Sequence[tuple[float, float, Sequence[float], Truth]], cpu: float) -> Reading:
    true = [truth.writes[0][0] - started for started, _, _, truth in rows]
    errors = sorted(ttft - real for (_, ttft, _, _), real in zip(rows, true, strict=True))
    measured = [gap for _, _, gaps, _ in rows for gap in gaps]
    written = sum(truth.writes[-1][0] - truth.writes[0][0] for *_, truth in rows)
    tokens = sum(sum(new for _, new in truth.writes[1:]) for *_, truth in rows)
    return Reading(
        tuple(errors),
        sum(true) / len(true),
        (sum(measured) / len(measured)) / (written / tokens) if measured and written else math.nan,
        cpu,
    )


def kolmogorov(numbers: Sequence[float], below: Callable[[float], float]) -> float:
    """p value that `numbers` come from the distribution with the share `below` of a value (asymptotic,
    n > 50)."""
    ordered, count = sorted(numbers), len(numbers)
    distance, total = 0.0, 0.0
    for index, number in enumerate(ordered):
        share = below(number)
        distance = max(distance, share - index / count, (index + 1) / count - share)
    root = math.sqrt(count)
    reach = (root + 0.12 + 0.11 / root) * distance
    if reach < 0.2:
        return 1.0
    for step in range(1, 101):
        total += (1 if step % 2 else -1) * math.exp(-2 * step**2 * reach**2)
    return min(1.0, max(0.0, 2 * total))
