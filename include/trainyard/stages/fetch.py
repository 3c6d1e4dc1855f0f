"""fetch: a pod copies the pinned revision from its source to S3, digests verified."""

from __future__ import annotations

from trainyard.errors import NotFound
from trainyard.kube.cluster import Object
from trainyard.kube.pods import cpu_job
from trainyard.release import Release
from trainyard.stages.context import Context, Done, Skip
from trainyard.stages.plan import origin_of
from trainyard.stages.progress import fetch_progress, forget
from trainyard.stages.sealing import seal_model
from trainyard.store.announcements import wait_until_free
from trainyard.store.bundles import missing_blobs
from trainyard.store.models import read_model

_DEADLINE = 6 * 3600


def pod(ctx: Context, release: Release) -> Object | Skip:
    # The record says by now what this release needs; a sweep that began before may be about to delete it.
    wait_until_free(ctx.objects, [release.plan.model_manifest, release.plan.bundle_manifest])
    if _is_there(ctx, release):
        seal_model(ctx, release)
        return Skip(f"{release.spec.model.repo}@{release.plan.revision[:12]} is in S3 already")
    model = release.spec.model
    origin_of(ctx, release.spec).source()  # refuses what no pod can see
    return cpu_job(
        name=f"fetch-{release.id}",
        namespace=ctx.settings.jobs_namespace,
        job_name="fetch",
        job={
            "bucket": ctx.settings.bucket,
            "repo": release.spec.model.repo,
            "revision": release.plan.revision,
            "endpoint": ctx.settings.hub_endpoint,
            "release": release.id,
            **({"source": model.source} if model.source else {}),
        },
        image=ctx.settings.jobs_image,
        service_account="trainyard-fetch",
        model=release.model,
        release=release.id,
        deadline_seconds=_DEADLINE,
        token_secret=None if model.source else model.token_secret,
    )


def progress(ctx: Context, release: Release) -> str:
    """How far the pod is, for the record; empty while it has not said."""
    return fetch_progress(ctx.objects, release.id)


def _is_there(ctx: Context, release: Release) -> bool:
    """Mirrored, and whole: a blob that was damaged is set aside, and the fetch brings that one again."""
    try:
        manifest = read_model(ctx.objects, release.spec.model.repo, release.plan.revision)
    except NotFound:
        return False
    gone = missing_blobs(ctx.objects, manifest.files)
    if gone:
        ctx.log.warning("%s: %s is gone: it is fetched again", manifest.key, ", ".join(gone[:3]))
    return not gone


def finish(ctx: Context, release: Release) -> Done:
    """The manifest decides, not the pod: a pod that is gone may have finished. Raises NotFound,
    CorruptArtifact."""
    seal_model(ctx, release)
    manifest = read_model(ctx.objects, release.spec.model.repo, release.plan.revision)
    forget(ctx.objects, release.id)
    return Done(
        f"{len(manifest.files)} files, {manifest.size / 1e6:.1f} MB of {release.spec.model.repo}"
        f"@{release.plan.revision[:12]} are in S3, digests verified",
        {"files": len(manifest.files), "bytes": manifest.size},
    )
