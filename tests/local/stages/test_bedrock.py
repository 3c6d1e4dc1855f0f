"""The look at Bedrock with a real store, Hub and boto3 client: what is left in S3, what is not touched."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.bedrock import LLAMA, LocalBedrock, bedrock, bedrock_process, legacy
from tests.support.models import entry, write_entry
from tests.support.world import World
from trainyard.bedrock_policy import Step
from trainyard.errors import BedrockUnavailable, HubUnavailable, PermanentError, Refused
from trainyard.stages import bedrock as stage

__all__ = ["bedrock", "bedrock_process"]
NAMED = f"{LLAMA}-v1:0"


def look(world: World, server: LocalBedrock, **named: Any) -> Step:
    world.catalogue(bedrock={"model_id": LLAMA, "version": "v1:0", **named})
    return stage.run(world.again(), "tiny", server.seam)


def left(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.ctx.objects.get("bedrock/tiny.json").body)
    return found


def test_in_step_before_the_first_release_and_after_it(world: World, bedrock: LocalBedrock) -> None:
    revision = world.revisions[2]
    assert look(world, bedrock, revision=revision).state == "in_step"
    release = world.planned(2)
    world.ctx.channels.move("tiny", release.id, release.lease_token)
    assert look(world, bedrock, revision=revision).state == "in_step"
    document = left(world)
    assert (document["state"], document["model"], document["mismatches"]) == ("in_step", "tiny", [])
    assert document["bedrock"] == {"model_id": LLAMA, "version": "v1:0", "region": "us-east-2"}
    assert document["looked_at"].endswith("Z")


def test_a_stable_release_of_another_commit_is_out_of_step(world: World, bedrock: LocalBedrock) -> None:
    release = world.planned(1)
    world.ctx.channels.move("tiny", release.id, release.lease_token)
    before = world.seen()
    step = look(world, bedrock, revision=world.revisions[2])
    assert [each.field for each in step.mismatches] == ["stable"]
    assert left(world)["mismatches"][0]["value"] == world.revisions[1][:12]
    after = world.seen()
    after.pop("bedrock/tiny.json")
    assert after == before


def test_a_branch_that_moved_on_is_out_of_step(world: World, bedrock: LocalBedrock) -> None:
    step = look(world, bedrock, revision=world.revisions[0])
    assert [(each.field, each.value) for each in step.mismatches] == [
        ("model.revision", world.revisions[2][:12])
    ]


def test_without_a_named_commit_the_hub_is_not_asked(world: World, bedrock: LocalBedrock) -> None:
    ctx = world.again()
    ctx.make_hub = lambda: pytest.fail("the Hub was asked")
    world.catalogue(bedrock={"model_id": LLAMA, "version": "v1:0"})
    assert stage.run(ctx, "tiny", bedrock.seam).state == "in_step"


def test_the_region_of_the_entry_wins_over_ours(world: World, bedrock: LocalBedrock) -> None:
    bedrock.offers({"modelId": NAMED, "regions": ["eu-west-1"]}, f"{LLAMA}-v0:1")
    assert look(world, bedrock).state == "out_of_step"
    assert look(world, bedrock, region="eu-west-1").state == "in_step"


def test_a_repository_that_is_gone_does_not_hide_what_bedrock_says(
    world: World, bedrock: LocalBedrock
) -> None:
    bedrock.offers(legacy(NAMED, "2020-01-31T00:00:00Z"))
    world.catalogue(bedrock={"model_id": LLAMA, "version": "v1:0", "revision": "1" * 40})
    world.document["model"]["repo"] = "tests/nothere"
    (world.folder / "tiny.yaml").write_text(json.dumps(world.document))
    step = stage.run(world.again(), "tiny", bedrock.seam)
    assert [each.field for each in step.mismatches] == ["bedrock.version", "model"]
    assert "does not exist" in step.words


def test_a_stable_release_without_a_record_is_out_of_step(world: World, bedrock: LocalBedrock) -> None:
    release = world.planned(2)
    world.ctx.channels.move("tiny", "tiny-lost", release.lease_token)
    step = look(world, bedrock, revision=world.revisions[2])
    assert [each.field for each in step.mismatches] == ["stable"]


def test_silence_is_written_as_unknown_beside_the_last_answer(world: World, bedrock: LocalBedrock) -> None:
    look(world, bedrock)
    answered = left(world)
    for error in ("AccessDeniedException", "ThrottlingException"):
        bedrock.offers(NAMED, rules=({"error": error},))
        with pytest.raises(BedrockUnavailable, match=error):
            look(world, bedrock)
        document = left(world)
        assert document["state"] == "unknown"
        assert error in document["words"]
        assert document["last"] == answered
    bedrock.offers(NAMED)
    look(world, bedrock)
    assert "last" not in left(world)


def test_silence_of_the_hub_is_unknown_too(
    world: World, bedrock: LocalBedrock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainyard.hub.TRIES", 1)
    world.catalogue(bedrock={"model_id": LLAMA, "version": "v1:0", "revision": world.revisions[2]})
    ctx = world.again()
    ctx.hub.endpoint = "http://127.0.0.1:9"
    with pytest.raises(HubUnavailable):
        stage.run(ctx, "tiny", bedrock.seam)
    assert (left(world)["state"], left(world)["last"]) == ("unknown", None)


def test_an_entry_that_changed_meanwhile_is_said_so(world: World, bedrock: LocalBedrock) -> None:
    world.catalogue()
    with pytest.raises(PermanentError, match="names no Bedrock model any more"):
        stage.run(world.again(), "tiny", bedrock.seam)
    (world.folder / "tiny.yaml").unlink()
    with pytest.raises(Refused):
        stage.run(world.again(), "tiny", bedrock.seam)


def test_only_followed_entries_that_can_be_read_and_name_a_model_are_looked_at(world: World) -> None:
    named = {"model_id": LLAMA, "version": "v1:0"}
    for name, changes in {"a": {"bedrock": named}, "b": {}, "c": {"bedrock": named}}.items():
        write_entry(world.folder, entry(name=name, **changes))
    (world.folder / "broken.yaml").write_text("name: broken\nbedrock: [")
    settings = world.ctx.settings
    assert stage.hybrids(settings) == []
    assert stage.hybrids(settings.model_copy(update={"follow": "*"})) == ["a", "c"]
    assert stage.hybrids(settings.model_copy(update={"follow": "b, c, nothere, ../c"})) == ["c"]
