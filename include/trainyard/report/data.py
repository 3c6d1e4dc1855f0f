"""The report as JSON: what the page shows, without the raw samples. `Report.from_dict` reads it back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trainyard.bench.samples import Sample
from trainyard.report import curves
from trainyard.report.document import Phase, Report
from trainyard.report.phases import failures
from trainyard.report.plots import METRICS
from trainyard.report.timeline import TIMELINES

SCHEMA = "trainyard.report/1"


def render_json(report: Report) -> str:
    return json.dumps(_finite(to_document(report)), indent=1, allow_nan=False) + "\n"


def to_document(report: Report) -> dict[str, Any]:
    """Times are seconds. `distributions`: by metric and arm, [share at most that slow, seconds]. `over_time`:
    by metric and arm, slices of the run."""
    return {
        "schema": SCHEMA,
        "release": {
            "id": report.release,
            "model": report.model,
            "outcome": report.outcome,
            "reason": report.reason,
            "started_at": report.started_at,
            "finished_at": report.finished_at,
            "facts": dict(report.facts),
            "links": dict(report.links),
        },
        "timeline": [asdict(stage) for stage in report.timeline],
        "weights": [{"at": weight.at, "percent": dict(weight.percent)} for weight in report.weights],
        "phases": [_phase(phase) for phase in report.phases],
        "devices": [asdict(device) for device in report.devices],
        "log": list(report.log),
    }


def _phase(phase: Phase) -> dict[str, Any]:
    return {
        "name": phase.name,
        "verdict": phase.verdict.to_dict() if phase.verdict else None,
        "summary": dict(phase.summary),
        "failures": failures(phase.summary.get("arms") or {}, phase.samples),
        "distributions": {metric: _distributions(metric, phase.samples) for metric in METRICS},
        "over_time": {
            metric: {
                arm: [asdict(window) for window in curves.windows(own, attribute)]
                for arm, own in curves.by_arm(phase.samples).items()
            }
            for metric, (_, attribute) in TIMELINES.items()
        },
    }


def _distributions(metric: str, samples: Sequence[Sample]) -> dict[str, list[list[float]]]:
    return {
        arm: [[round(share, 6), round(seconds, 9)] for share, seconds in curves.distribution(numbers)]
        for arm, numbers in curves.sorted_values(samples, metric).items()
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: both become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
