"""publish: what was staged becomes a bundle once, or not at all."""

from __future__ import annotations

import pytest

from tests.support.world import World
from trainyard.errors import (
    CorruptArtifact,
    NotFound,
    PermanentError,
)
from trainyard.stages import compile as compile_stage
from trainyard.stages import (
    compile_node,
    fetch,
    publish,
)
from trainyard.stages.context import Done, Skip, Watch
from trainyard.store.bundles import read_bundle


def test_what_was_staged_becomes_a_bundle_once(world: World) -> None:
    release = world.planned()
    world.stage_compiled(release)
    assert isinstance(publish.run(world.again(), release), Done)
    before = world.seen()
    assert isinstance(publish.run(world.again(), release), Skip)
    assert world.seen() == before
    bundle = read_bundle(world.ctx.objects, release.plan.fingerprint)
    assert bundle.inputs == release.plan.fingerprint_inputs
    assert bundle.has_weights


def test_a_published_bundle_saves_the_compile_and_its_node(world: World) -> None:
    release = world.planned()
    assert isinstance(compile_stage.pod(world.ctx, release), dict)
    assert isinstance(compile_node.watch(world.ctx, release), Watch)
    world.publish(release)
    assert isinstance(compile_stage.pod(world.ctx, release), Skip)
    assert isinstance(compile_node.watch(world.ctx, release), Skip)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"neuron_config_json": b"{}"}, "tp_degree"),
        ({"neuron_config_json": b"[]"}, "no object"),
        ({"neuron_config_json": b"{"}, "no JSON"),
        ({"model_pt": b""}, "model.pt is missing"),
        ({"checkpoint_weights_tp3_sharded_checkpoint_safetensors": b""}, "3 of 4"),
    ],
)
def test_a_set_that_could_not_be_served_is_never_published(
    world: World, changes: dict[str, bytes], word: str
) -> None:
    release = world.planned()
    world.stage_compiled(release, **changes)
    with pytest.raises(PermanentError, match=word):
        publish.run(world.again(), release)
    assert world.ctx.objects.head_or_none(release.plan.bundle_manifest) is None


def test_staged_bytes_that_differ_from_their_digest_are_never_published(world: World) -> None:
    release = world.planned()
    world.stage_compiled(release)
    world.ctx.objects.put(f"staging/{release.plan.fingerprint}/{release.id}/files/model.pt", b"neft" * 99)
    with pytest.raises(CorruptArtifact):
        publish.run(world.again(), release)
    assert world.ctx.objects.head_or_none(release.plan.bundle_manifest) is None


def test_without_a_result_there_is_nothing_to_publish(world: World) -> None:
    release = world.planned()
    with pytest.raises(NotFound):
        publish.run(world.again(), release)
    with pytest.raises(NotFound):
        compile_stage.finish(world.again(), release)
    with pytest.raises(NotFound):
        fetch.finish(world.again(), release)
