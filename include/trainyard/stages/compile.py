"""compile: the engine's own command in AWS's own image on a Neuron node; its output is staged in S3."""

from __future__ import annotations

from trainyard.kube.cluster import Object
from trainyard.kube.pods import neuron_job
from trainyard.neuron.engines import engine
from trainyard.release import Release
from trainyard.stages.build import build_of, staging
from trainyard.stages.context import Context, Done, Skip
from trainyard.stages.damaged import understand
from trainyard.stages.history import compile_fields, compile_story
from trainyard.stages.sealing import known_digest
from trainyard.store.bundles import bundle_usable

__all__ = ["finish", "log_key", "pod", "understand"]


def pod(ctx: Context, release: Release) -> Object | Skip:
    spec, plan = release.spec, release.plan
    if bundle_usable(ctx.objects, plan.fingerprint):
        return Skip(f"bundle {plan.fingerprint[:12]} is published already: no compile, no node")
    build, chosen = build_of(release), engine(spec.engine)
    command = chosen.compile_command(build)
    known = compile_fields(ctx, release)
    return neuron_job(
        name=f"compile-{release.id}",
        namespace=ctx.settings.jobs_namespace,
        job_name="compile",
        job={
            "bucket": ctx.settings.bucket,
            "fingerprint": plan.fingerprint,
            "attempt": release.id,
            "staging": staging(release),
            "model": plan.model_manifest,
            "model_sha256": known_digest(ctx, plan.model_manifest),
            "model_dir": build.model_dir,
            "output_dir": build.output_dir,
            "command": list(command.argv),
            "until": command.until,
            "env": dict(command.env),
            "log_key": log_key(release),
            "expect": list(chosen.expects(build)),
            **known,
        },
        image=plan.image,
        tools_image=ctx.settings.jobs_image,
        service_account="trainyard-compile",
        model=release.model,
        release=release.id,
        # The learned deadline is the compiler's own, kept by the job; the pod also pulls, fetches and waits.
        deadline_seconds=spec.compile.deadline_minutes * 60,
        chips=plan.chips,
        instance_type=spec.hardware.instance_type,
        nodepool=spec.hardware.nodepool,
        cpu=spec.compile.cpu,
        memory=spec.compile.memory,
        annotations=spec.compile.annotations,
        cache_claim=ctx.settings.compile_cache_claim,
    )


def finish(ctx: Context, release: Release) -> Done:
    """What was staged decides. Raises NotFound where the pod left no result."""
    if bundle_usable(ctx.objects, release.plan.fingerprint):
        return Done(f"bundle {release.plan.fingerprint[:12]} was published meanwhile")
    words, told = compile_story(ctx, release)
    words = f"compiled by {release.spec.engine}: {words}" if words else f"compiled by {release.spec.engine}"
    return Done(f"{words}; the full log is at {log_key(release)}", {"log": log_key(release), **told})


def log_key(release: Release) -> str:
    return f"logs/{release.model}/{release.id}/compile.log"
