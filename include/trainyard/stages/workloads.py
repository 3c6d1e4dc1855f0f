"""From a release's spec to what its load test sends."""

from __future__ import annotations

from typing import Any

from trainyard.spec import Load


def workload_of(load: Load, seconds: float) -> dict[str, Any]:
    """The document of `bench.workload.Workload` for a run of so many seconds."""
    return {
        "concurrency": load.concurrency,
        "duration_seconds": seconds,
        "prompt_tokens": load.prompt_tokens,
        "output_tokens": load.output_tokens,
        "max_loop_lag_seconds": load.max_lag_seconds,
    }
