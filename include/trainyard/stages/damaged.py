"""What a pod found damaged in S3 and could not put right: pods that compile or serve may only read there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainyard.errors import CorruptArtifact, NotFound, TrainyardError
from trainyard.release import Release
from trainyard.stages.context import Context
from trainyard.store import damage
from trainyard.store.manifests import FileEntry, blobs_of
from trainyard.store.trees import Tree, read_tree

_DIGEST = re.compile(r"[0-9a-f]{64}")


def understand(ctx: Context, release: Release, error: TrainyardError) -> TrainyardError:
    """The error to end the release with: a pod's CorruptArtifact, with what was done about it.

    The pod's word is a hint, and no more: what it names is read again here. What is damaged is set aside; a
    bundle is marked, so that the next release compiles, and a model's file is fetched by it again.
    """
    if not isinstance(error, CorruptArtifact):
        return error
    done: dict[str, str] = {}
    try:
        for tree, entry, size in _named(ctx, release, str(error)):
            words = damage.handle(ctx.objects, entry.blob, size, tree.fingerprint, entry.path, str(error))
            if words:
                done[f"{entry.path} of {tree.key}"] = words
    except TrainyardError as trouble:
        ctx.log.warning("What the pod found damaged could not be looked at: %s", trouble)
        return error
    if not done:
        return CorruptArtifact(
            f"{error}\nWhat it names is sound in S3 now: it was mended meanwhile, or damaged on the way. "
            "Release again."
        )
    return CorruptArtifact(
        f"{error}\nFound the same from here. " + " ".join(f"{what}: {words}" for what, words in done.items())
    )


def _named(ctx: Context, release: Release, words: str) -> Iterator[tuple[Tree, FileEntry, int]]:
    """Files of the release's bundle and model that the words are about, each blob once, with its size."""
    digests = set(_DIGEST.findall(words))
    for key in (release.plan.bundle_manifest, release.plan.model_manifest):
        try:
            tree = read_tree(ctx.objects, key)
        except (NotFound, CorruptArtifact):
            continue
        sizes, seen = blobs_of(tree.files), set[str]()
        for entry in tree.files:
            about = words.startswith(f"{entry.path} is damaged") or digests & {entry.blob, entry.sha256}
            if about and entry.blob not in seen:
                seen.add(entry.blob)
                yield tree, entry, sizes[entry.blob]
