"""A pod that may only read finds damage in S3: the stage that waits for it does what the pod could not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.world import World
from trainyard.errors import CanaryNotReady, CorruptArtifact, PermanentError
from trainyard.jobs.fetch import fetch as fetch_model
from trainyard.kube.watchers import WATCHERS
from trainyard.release import Release
from trainyard.stages import compile as compiling
from trainyard.stages import fetch, ready
from trainyard.stages.context import Skip, Watch
from trainyard.store import keys
from trainyard.store.bundles import bundle_usable
from trainyard.store.objects import Objects
from trainyard.store.trees import materialise, read_tree


class ReadOnly(Objects):
    """What the role of server pods may do."""

    def put(self, key: str, body: bytes) -> str:
        raise PermanentError(f"s3://{self.bucket}/{key} may not be written (AccessDenied).")


def spoil(world: World, manifest: str, path: str) -> str:
    """Flips a bit where a file lies in S3; returns its digest."""
    entry = next(entry for entry in read_tree(world.ctx.objects, manifest).files if entry.path == path)
    body = bytearray(world.ctx.objects.get(keys.blob(entry.blob)).body)
    body[len(body) // 2] ^= 1
    world.ctx.objects.put(keys.blob(entry.blob), bytes(body))
    return entry.blob


def found_by_a_pod(world: World, manifest: str, folder: Path) -> str:
    """The pod's termination message."""
    objects = ReadOnly(world.ctx.objects.client, world.ctx.objects.bucket)
    with pytest.raises(CorruptArtifact, match="this account could not") as caught:
        materialise(objects, manifest, folder)
    return json.dumps({"error": "CorruptArtifact", "message": str(caught.value)})


def seen(world: World, release: Release, message: str) -> CorruptArtifact:
    """What the task that waits for the servers ends with."""
    terminated = {"exitCode": 1, "reason": "Error", "message": message}
    status: dict[str, Any] = {
        "name": "materialise",
        "ready": False,
        "restartCount": 2,
        "image": "x",
        "imageID": "x",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": terminated},
    }
    world.pod(release, "Pending", initContainerStatuses=[status])
    wanted = ready.watch(world.again(), release)
    assert isinstance(wanted, Watch)
    with pytest.raises(CorruptArtifact) as caught:
        WATCHERS[wanted.watcher](world.ctx.cluster, **wanted.arguments)
    error = ready.understand(world.again(), release, caught.value)
    assert isinstance(error, CorruptArtifact)
    return error


def test_a_bundle_that_a_server_finds_damaged_is_marked_and_compiled_by_the_next_release(
    world: World, tmp_path: Path
) -> None:
    release = world.deployed(world.planned())
    assert isinstance(compiling.pod(world.again(), release), Skip)
    digest = spoil(world, release.plan.bundle_manifest, "model.pt")
    message = found_by_a_pod(world, release.plan.bundle_manifest, tmp_path / "tree")
    # The pod itself could change nothing.
    assert world.ctx.objects.head_or_none(keys.blob(digest)) is not None
    assert world.ctx.objects.head_or_none(keys.bundle_damage(release.plan.fingerprint)) is None

    error = seen(world, release, message)
    assert str(error).startswith("model.pt is damaged in S3")
    assert "The bundle is marked" in str(error)
    assert world.ctx.objects.head_or_none(keys.blob(digest)) is None
    assert not bundle_usable(world.ctx.objects, release.plan.fingerprint)
    assert not isinstance(compiling.pod(world.again(), release), Skip)


def test_a_models_file_that_a_pod_finds_damaged_is_fetched_again_by_the_next_release(
    world: World, tmp_path: Path
) -> None:
    release = world.deployed(world.planned())
    fetch_model(world.ctx.objects, world.ctx.hub, release.spec.model.repo, release.plan.revision)
    assert isinstance(fetch.pod(world.again(), release), Skip)
    digest = spoil(world, release.plan.model_manifest, "tokenizer.json")
    message = found_by_a_pod(world, release.plan.model_manifest, tmp_path / "tree")
    error = seen(world, release, message)
    assert "fetched anew" in str(error)
    assert bundle_usable(world.ctx.objects, release.plan.fingerprint)
    assert not isinstance(fetch.pod(world.again(), release), Skip)
    fetch_model(world.ctx.objects, world.ctx.hub, release.spec.model.repo, release.plan.revision)
    assert world.ctx.objects.head_or_none(keys.blob(digest)) is not None


def test_what_a_pod_says_of_sound_files_condemns_nothing(world: World) -> None:
    release = world.deployed(world.planned())
    before = world.seen()
    told = "model.pt is damaged in S3: its digest is another."
    error = ready.understand(world.again(), release, CorruptArtifact(told))
    assert "sound in S3 now" in str(error)
    assert world.seen() == before
    other = CanaryNotReady("late")
    assert ready.understand(world.again(), release, other) is other
