"""publish: verify what was staged and make it a content-addressed bundle, manifest last."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping

from trainyard.neuron.engines import engine
from trainyard.release import Release
from trainyard.stages.build import build_of, staging
from trainyard.stages.context import Context, Done, Skip
from trainyard.stages.sealing import checked
from trainyard.store.bundles import bundle_usable, publish_bundle, read_bundle


def run(ctx: Context, release: Release) -> Done | Skip:
    """Raises CorruptArtifact, Unsigned, PermanentError (a set that the engine would refuse), Conflict."""
    plan = release.plan
    if bundle_usable(ctx.objects, plan.fingerprint):
        checked(ctx, plan.bundle_manifest)
        bundle = read_bundle(ctx.objects, plan.fingerprint)
        return Skip(f"bundle {plan.fingerprint[:12]} is published already ({len(bundle.files)} files)")
    chosen, build = engine(release.spec.engine), build_of(release)

    def validate(files: Mapping[str, int], read: Callable[[str], bytes]) -> list[str]:
        missing = []
        # One file a rank, one a bucket: a set without one of them fails only when a server loads it.
        for pattern, wanted in chosen.expects(build).items():
            found = sum(fnmatch.fnmatch(path, pattern) for path in files)
            if found < wanted:
                missing.append(f"{pattern} is missing" if not found else f"{found} of {wanted} {pattern}")
        return missing or chosen.problems_of_bundle(files, read, build)

    published = publish_bundle(
        ctx.objects,
        plan.fingerprint,
        staging(release),
        inputs=plan.fingerprint_inputs,
        validate=validate,
        engine=release.spec.engine,
        versions=plan.fingerprint_inputs["versions"],
        target=build.target,
        has_weights=plan.has_weights,
        keyring=ctx.keyring,
    )
    size = sum(file.size for file in published.manifest.files)
    how = "published" if published.created else "another publisher was first; its bundle is used"
    return Done(
        f"bundle {plan.fingerprint[:12]}: {len(published.manifest.files)} files, {size / 1e6:.1f} MB, {how}",
        {"files": len(published.manifest.files), "bytes": size, "adopted": not published.created},
    )
