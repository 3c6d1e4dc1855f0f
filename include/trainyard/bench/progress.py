"""What a load test has seen so far: counted while it runs, merged over processes and pods, told in a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainyard.bench.samples import Sample
from trainyard.bench.sketch import Sketch

METRICS = ("ttft", "itl", "e2e")


@dataclass
class ArmProgress:
    """Of one arm. times: of the successful requests, by metric."""

    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    times: dict[str, Sketch] = field(default_factory=lambda: {metric: Sketch() for metric in METRICS})

    def count(self, sample: Sample) -> None:
        self.requests += 1
        if not sample.ok:
            self.failures[sample.error] += 1
            return
        for metric, value in (("ttft", sample.ttft), ("e2e", sample.e2e)):
            if value is not None:
                self.times[metric].add(value)
        # As `Sample.gaps`: a chunk of k tokens is k gaps.
        before, gaps = None, self.times["itl"]
        for now, tokens in zip(sample.chunk_times, sample.chunk_tokens, strict=False):
            if before is not None and tokens:
                gaps.add((now - before) / tokens, tokens)
            before = now

    def words(self) -> str:
        failed = sum(self.failures.values())
        told = f"{self.requests} requests" + (f", {failed} failed" if failed else "")
        for metric, sketch in self.times.items():
            if sketch.count:
                half, most = sketch.quantiles((0.5, 0.99))
                told += f", {metric} p50 {half * 1000:.1f} p99 {most * 1000:.1f} ms"
        return told


@dataclass
class Progress:
    arms: dict[str, ArmProgress] = field(default_factory=dict)

    def count(self, lines: Iterable[bytes]) -> None:
        """Rows of NDJSON."""
        for line in lines:
            sample = Sample.from_row(json.loads(line))
            self.arms.setdefault(sample.arm, ArmProgress()).count(sample)

    def merge(self, other: Progress) -> None:
        for name, theirs in other.arms.items():
            ours = self.arms.setdefault(name, ArmProgress())
            ours.requests += theirs.requests
            ours.failures += theirs.failures
            for metric, sketch in theirs.times.items():
                ours.times[metric].merge(sketch)

    def words(self) -> str:
        """One line, milliseconds."""
        told = [f"{name}: {arm.words()}" for name, arm in sorted(self.arms.items())]
        return "; ".join(told) or "no answer yet"

    def to_dict(self) -> dict[str, Any]:
        return {
            name: {
                "requests": arm.requests,
                "failures": dict(arm.failures),
                "times": {metric: sketch.to_dict() for metric, sketch in arm.times.items()},
            }
            for name, arm in self.arms.items()
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Progress:
        return cls(
            {
                name: ArmProgress(
                    int(arm["requests"]),
                    Counter(arm["failures"]),
                    {metric: Sketch.from_dict(sketch) for metric, sketch in arm["times"].items()},
                )
                for name, arm in document.items()
            }
        )


def together(parts: Iterable[Progress]) -> Progress:
    total = Progress()
    for part in parts:
        total.merge(part)
    return total
