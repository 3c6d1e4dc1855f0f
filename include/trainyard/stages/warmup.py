"""warm_up: real generations until latency settles, then the smoke prompts. Kept out of the figures."""

from __future__ import annotations

import json

from trainyard.bench.warmup import visits
from trainyard.kube.addresses import servers_of, urls_of
from trainyard.kube.cluster import Object
from trainyard.kube.pods import cpu_job
from trainyard.neuron.size_rules import TEMPLATE_TOKENS
from trainyard.release import Release
from trainyard.stages.context import Context, Done, Skip

WARM_TOKENS = 8
_DEADLINE, _TIMEOUT = 1800, 120.0
_SECONDS_A_TOKEN = 1 / 500  # a slow prefill


def prefix(release: Release) -> str:
    return f"measurements/{release.model}/{release.id}/warmup/"


def pod(ctx: Context, release: Release) -> Object | Skip:
    spec = release.spec
    images = spec.rollout.load.images
    # Whatever live users send is warm, too: up to what is compiled. The rest of the sequence is the answer's.
    longest = max(1, spec.compile.sequence_length - WARM_TOKENS - TEMPLATE_TOKENS)
    return cpu_job(
        name=f"warmup-{release.id}",
        namespace=ctx.settings.jobs_namespace,
        job_name="warmup",
        job={
            "bucket": ctx.settings.bucket,
            "output": prefix(release),
            "model": spec.served_name,
            # Every server by itself: a Service would give the visits to whichever it picks.
            "urls": servers_of(ctx.cluster, ctx.settings, release.id)
            or urls_of(ctx.cluster, ctx.settings, release.id),
            "prompts": list(spec.rollout.smoke_prompts),
            "visits": visits(longest, spec.compile.batch_size),
            "images": images.model_dump() if images else None,
            "max_rounds": 12,
            "warm_tokens": WARM_TOKENS,
            "timeout_seconds": max(_TIMEOUT, longest * _SECONDS_A_TOKEN),
        },
        image=ctx.settings.jobs_image,
        service_account="trainyard-loadtest",
        model=release.model,
        release=release.id,
        deadline_seconds=_DEADLINE + int(24 * longest * _SECONDS_A_TOKEN),
    )


def finish(ctx: Context, release: Release) -> Done:
    """Raises NotFound where the pod left no result; a failed smoke prompt is the pod's own PermanentError."""
    result = json.loads(ctx.objects.get(f"{prefix(release)}warmup.json").body)
    return Done(_words(result, len(release.spec.rollout.smoke_prompts)), {"result": result})


def _words(result: dict[str, object], prompts: int) -> str:
    rounds = result.get("rounds")
    count = len(rounds) if isinstance(rounds, list) else rounds
    buckets, settled = result.get("buckets"), result.get("settled")
    where = f" in {len(buckets)} visits to buckets" if isinstance(buckets, list) else ""
    state = "settled" if settled else "has not settled"
    return f"latency {state} after {count} round(s){where}; {prompts} smoke prompt(s) answered well"
