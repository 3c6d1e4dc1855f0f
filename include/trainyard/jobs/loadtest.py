"""The load-test job: asks canary and baseline in turn, keeps every raw sample in S3, says what it saw.

Input: `bucket`, `output` (key prefix), `phase`, `seed`, `model`,
`arms` ({"canary": [url, ...], "baseline": ...}),
`workload` (see `bench.workload.Workload`), `objectives` (see `bench.goodput.Limits`)
and, to observe the gateway's split, `split` ({"url", "host",
"probes", "canary_name"}). Writes `samples.ndjson.gz` and, last, `summary.json`.

A server that fails or is slow is a result and no error of this job: judging is not its business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainyard.bench.goodput import Limits
from trainyard.bench.load import run_load
from trainyard.bench.samples import pack
from trainyard.bench.split import observe_split
from trainyard.bench.workload import Workload
from trainyard.errors import Problem, Refused
from trainyard.jobs.runtime import open_store


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Returns where the files are, and the summary in short. Raises Refused, StoreUnavailable."""
    _check(job)
    workload = Workload.from_dict(job.get("workload") or {})
    arms = {arm: urls for arm, urls in job["arms"].items() if urls}
    samples, summary = run_load(
        model=job["model"],
        arms=arms,
        workload=workload,
        seed=int(job.get("seed", 0)),
        limits=Limits.from_dict(job.get("objectives") or {}),
    )
    summary["phase"] = job.get("phase", "load")
    wanted = job.get("split")
    summary["split"] = (
        observe_split(
            wanted["url"],
            canary_name=wanted["canary_name"],
            probes=int(wanted.get("probes", 200)),
            host=wanted.get("host"),
        )
        if wanted
        else None
    )
    prefix = job["output"].rstrip("/") + "/"
    # The summary comes last: whoever sees it finds the samples complete.
    store = open_store(job)
    store.put(f"{prefix}samples.ndjson.gz", pack(samples))
    store.put(f"{prefix}summary.json", json.dumps(summary, indent=1).encode())
    return {
        "summary": f"s3://{job['bucket']}/{prefix}summary.json",
        "samples": f"s3://{job['bucket']}/{prefix}samples.ndjson.gz",
        "arms": {
            arm: {
                "requests": figures["requests"],
                "failures": figures["failures"],
                "ttft_p95": figures["ttft"].get("p95"),
                "itl_p95": figures["itl"].get("p95"),
            }
            for arm, figures in summary["arms"].items()
        },
        "valid": summary["generator"]["valid"],
        "reasons": summary["generator"]["reasons"],
        "split": summary["split"],
    }


def _check(job: Mapping[str, Any]) -> None:
    problems = [
        Problem(field, job.get(field), "is needed by the load test", "Set it in the job document")
        for field in ("bucket", "output", "model", "arms")
        if not job.get(field)
    ]
    arms = job.get("arms") or {}
    if arms and not arms.get("canary"):
        problems.append(
            Problem("arms.canary", arms.get("canary"), "has no address", "Give its pods' addresses")
        )
    if problems:
        raise Refused(problems)
