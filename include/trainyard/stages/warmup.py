"""warm_up: real generations until latency settles, then the smoke prompts. Kept out of the figures."""

from __future__ import annotations

import json

from trainyard.kube.addresses import urls_of
from trainyard.kube.cluster import Object
from trainyard.kube.pods import cpu_job
from trainyard.release import Release
from trainyard.stages.context import Context, Done, Skip

_DEADLINE = 1800


def prefix(release: Release) -> str:
    return f"measurements/{release.model}/{release.id}/warmup/"


def pod(ctx: Context, release: Release) -> Object | Skip:
    spec = release.spec
    longest = spec.rollout.load.prompt_tokens
    # A first prompt of each bucket pays for loading it: visit short, middle and the longest that is measured.
    lengths = sorted({max(1, longest // 4), max(1, longest // 2), longest})
    return cpu_job(
        name=f"warmup-{release.id}",
        namespace=ctx.settings.jobs_namespace,
        job_name="warmup",
        job={
            "bucket": ctx.settings.bucket,
            "output": prefix(release),
            "model": spec.served_name,
            "urls": urls_of(ctx.cluster, ctx.settings, release.id),
            "prompts": list(spec.rollout.smoke_prompts),
            "prompt_tokens": lengths,
            "max_rounds": 12,
        },
        image=ctx.settings.jobs_image,
        service_account="trainyard-loadtest",
        model=release.model,
        release=release.id,
        deadline_seconds=_DEADLINE,
    )


def finish(ctx: Context, release: Release) -> Done:
    """Raises NotFound where the pod left no result; a failed smoke prompt is the pod's own PermanentError."""
    result = json.loads(ctx.objects.get(f"{prefix(release)}warmup.json").body)
    return Done(_words(result, len(release.spec.rollout.smoke_prompts)), {"result": result})


def _words(result: dict[str, object], prompts: int) -> str:
    rounds = result.get("rounds")
    count = len(rounds) if isinstance(rounds, list) else rounds
    return f"latency settled after {count} round(s); {prompts} smoke prompt(s) answered well"
