"""The warm-up job: real generations through every bucket until latency settles, then the smoke prompts.

Input: `bucket`, `output` (key prefix), `model`, `urls` (one a server), `prompts` (smoke prompts), `visits`
([[tokens of a prompt, how many at once], …]: those that visit every bucket), `images` (see
`bench.shapes.Images`; shown in visits of their own), `max_rounds`, `warm_tokens` and `output_tokens` (of
answers, in visits and to smoke prompts), `timeout_seconds`. Writes `warmup.json`, also when it fails. What is
measured here is not judged.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trainyard.bench.warmup import (
    Bucket,
    Smoke,
    as_rows,
    ask_smoke,
    gone_away,
    inspect_server,
    warm_bucket,
)
from trainyard.bench.workload import Workload
from trainyard.errors import PermanentError, Problem, Refused, TransientError
from trainyard.jobs.runtime import open_store

SCHEMA = "trainyard.warmup/1"
ROUNDS = 10
WARM_TOKENS = 8  # enough to generate with every graph
AT_ONCE = 8  # servers


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Raises `PermanentError` if a smoke prompt fails or a bucket never answers, `TransientError` if a server
    went away meanwhile."""
    problems = [
        Problem(field, job.get(field), "is needed by the warm-up", "Set it in the job document")
        for field in ("bucket", "output", "model", "urls", "prompts")
        if not job.get(field)
    ]
    if problems:
        raise Refused(problems)
    model, timeout = job["model"], float(job.get("timeout_seconds", 120))
    output_tokens = int(job.get("output_tokens", 16))
    visits = [(int(tokens), int(together), False) for tokens, together in job.get("visits") or [(64, 1)]]
    pictured = Workload.from_dict({"images": job["images"]} if job.get("images") else {})
    if pictured.images:
        visits += [(tokens, together, True) for tokens, together, _ in visits[:1]]
    servers: list[dict[str, Any]] = []
    buckets: list[Bucket] = []
    smokes: list[Smoke] = []

    def warm(url: str) -> None:
        servers.append(inspect_server(url, model, timeout=timeout))
        for tokens, together, shown in visits:
            buckets.append(
                warm_bucket(
                    url,
                    model,
                    tokens,
                    rounds=int(job.get("max_rounds", ROUNDS)),
                    output_tokens=int(job.get("warm_tokens", WARM_TOKENS)),
                    timeout=timeout,
                    together=together,
                    asking=pictured if shown else None,
                )
            )
        for text in job["prompts"]:
            smokes.append(ask_smoke(url, model, text, output_tokens=output_tokens, timeout=timeout))

    try:
        with ThreadPoolExecutor(min(AT_ONCE, len(job["urls"]))) as pool:
            list(pool.map(warm, job["urls"]))
    finally:
        key = job["output"].rstrip("/") + "/warmup.json"
        failed = [smoke for smoke in smokes if smoke.problem]
        document = {
            "schema": SCHEMA,
            "model": model,
            "servers": servers,
            "buckets": as_rows(buckets),
            "smoke": as_rows(smokes),
            "rounds": max((len(bucket.latencies) for bucket in buckets), default=0),
            "settled": bool(buckets) and all(bucket.settled for bucket in buckets),
            "ok": len(servers) == len(job["urls"]) and bool(smokes) and not failed,
        }
        open_store(job).put(key, json.dumps(document, indent=1).encode())
    if failed:
        gone = all(gone_away(smoke.problem) for smoke in failed)
        raise (TransientError if gone else PermanentError)(
            f"{len(failed)} of {len(smokes)} smoke prompts failed, first {failed[0].prompt!r} "
            f"at {failed[0].url}: {failed[0].problem}"
        )
    return {
        "warmup": f"s3://{job['bucket']}/{key}",
        "smoke": len(smokes),
        "generations": sum(len(bucket.latencies) for bucket in buckets),
        "settled": all(bucket.settled for bucket in buckets),
        "failures": sum(len(bucket.failures) for bucket in buckets),
    }
