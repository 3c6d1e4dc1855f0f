"""What a compile is told of compiles before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.models import GB, LLAMA, PaperHub, entry, paper_context
from trainyard.jobs.compile_cache import options_of
from trainyard.release import Release, now
from trainyard.spec import parse_spec
from trainyard.stages import plan as plan_stage
from trainyard.stages.context import Context
from trainyard.stages.history import compile_fields, compile_story, deadline_of, shape_of, story
from trainyard.store.compile_history import append_history
from trainyard.store.documents import encode
from trainyard.store.staging import staged_result


def release_of(folder: Path, hub: PaperHub | None = None, **changes: Any) -> tuple[Context, Release]:
    context = paper_context(folder, hub)
    spec = parse_spec(entry(**changes), "here")
    plan = plan_stage.make_plan(context, spec)
    return context, Release(
        schema=1,
        id="llama-r1",
        model="llama",
        run="run",
        spec=spec,
        plan=plan,
        lease_token=1,
        created_at=now(),
        updated_at=now(),
    )


def remember(context: Context, fields: dict[str, Any], seconds: float, outcome: str = "good") -> None:
    """As the compile job does."""
    sample = {"shape": fields["history"]["shape"], "seconds": seconds, "outcome": outcome}
    append_history(context.objects, fields["history"]["key"], sample)


def test_the_job_gets_its_caches_deadline_and_where_to_remember(tmp_path: Path) -> None:
    context, release = release_of(tmp_path)
    fields = compile_fields(context, release)
    assert fields["bundle"] == release.plan.bundle_manifest
    options = options_of(fields)
    assert (options.kind, options.key) == ("neuronx", shape_of(release).configuration)
    assert options.compiler
    assert fields["deadline"]["seconds"] == release.spec.compile.deadline_minutes * 60
    assert fields["history"]["key"] == "history/compiles/optimum-trn2.json"
    assert fields["lookup"]["command"][:5] == ["optimum-cli", "neuron", "cache", "lookup", "meta/llama"]
    assert "aws-neuron/optimum-neuron-cache" in fields["lookup"]["command"]


def test_a_revision_of_other_weights_has_the_same_key_and_another_shape_has_not(tmp_path: Path) -> None:
    def key(**changes: Any) -> str:
        hub = PaperHub(seed=changes.pop("seed", "one"))
        return shape_of(release_of(tmp_path, hub, **changes)[1]).configuration

    assert key() == key(seed="two")
    assert key() != key(compile={"batch_size": 4, "sequence_length": 4096, "memory": "64Gi"})


def test_what_the_jobs_remember_becomes_the_next_deadline(tmp_path: Path) -> None:
    context, release = release_of(tmp_path)
    fields = compile_fields(context, release)
    for seconds in (900, 1000, 950):
        remember(context, fields, seconds)
    assert compile_fields(context, release)["deadline"] | {"why": ""} == {
        "seconds": 1500,
        "learned": True,
        "why": "",
    }
    remember(context, fields, 1500, "cut")
    assert deadline_of(context, release).seconds == 3000


def test_a_deeper_model_of_the_family_is_given_more_time(tmp_path: Path) -> None:
    context, release = release_of(tmp_path)
    for _ in range(3):
        remember(context, compile_fields(context, release), 1000)
    deeper = PaperHub({**LLAMA, "num_hidden_layers": 48}, {"model.safetensors": 24 * GB})
    _, other = release_of(tmp_path, deeper)
    assert deadline_of(context, other).seconds == 2250


def test_a_history_that_is_damaged_leaves_the_spec_in_charge(tmp_path: Path) -> None:
    context, release = release_of(tmp_path)
    context.objects.put("history/compiles/optimum-trn2.json", b"\x00")
    assert not deadline_of(context, release).learned


def test_the_story_tells_what_was_spared_and_what_was_cleaned(tmp_path: Path) -> None:
    told = {
        "graphs": {"compiled": 1, "cached": 1, "warnings": 3},
        "cache": {"brought": 1, "kept": 1, "poisoned": 2, "waited_seconds": 61.5, "waited_for": "llama-r0"},
        "hub": "hit",
        "retried": True,
        "deadline": {"why": "25 min: p95 of 3 like compiles"},
    }
    words = story(told)
    for part in (
        "1 graph(s) compiled, 1 from a cache",
        "waited 62 s for llama-r0",
        "2 failed entries removed",
    ):
        assert part in words
    assert words.endswith("Deadline 25 min: p95 of 3 like compiles")
    context, release = release_of(tmp_path)
    key = staged_result(f"staging/{release.plan.fingerprint}/{release.id}/")
    context.objects.put(key, encode({"schema": 1, "compile": told}))
    assert compile_story(context, release) == (words, told)
    context.objects.put(key, encode({"schema": 1}))
    assert compile_story(context, release) == ("", {})
