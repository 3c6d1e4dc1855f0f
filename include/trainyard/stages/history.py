"""What a compile is told of compiles before it, and what it tells: caches to look into, the deadline that was
learned, and one sentence about how it went."""

from __future__ import annotations

from typing import Any

from trainyard.errors import CorruptArtifact
from trainyard.neuron.deadlines import Deadline, Shape, layers_of, learn_deadline, samples_of
from trainyard.neuron.engines import engine
from trainyard.release import Release
from trainyard.stages.build import build_of, staging
from trainyard.stages.context import Context
from trainyard.store.compile_cache import PREFIX, configuration_key
from trainyard.store.compile_history import history_key, read_history
from trainyard.store.documents import decode
from trainyard.store.staging import staged_result

# Compiled models that everybody may take, on the Hub.
HUB_CACHE = "aws-neuron/optimum-neuron-cache"


def shape_of(release: Release) -> Shape:
    """What decides on how long its compile takes."""
    plan, build = release.plan, build_of(release)
    return Shape(
        engine=plan.engine,
        target=build.target,
        family="/".join(part for part in (build.model_type, build.quantization) if part),
        layers=layers_of(plan.fingerprint_inputs.get("graph") or {}),
        weight_bytes=max(1, plan.weight_bytes),
        tensor_parallel=build.tensor_parallel,
        tokens=build.batch_size * build.sequence_length,
        configuration=configuration_key(plan.fingerprint_inputs),
        compiler=engine(release.spec.engine).versions.compiler,
    )


def deadline_of(ctx: Context, release: Release) -> Deadline:
    """One read. A history that is damaged is none."""
    shape = shape_of(release)
    try:
        known = samples_of(read_history(ctx.objects, history_key(shape.engine, shape.target)))
    except CorruptArtifact as error:
        ctx.log.warning("The history of compiles cannot be read: %s", error)
        known = []
    return learn_deadline(known, shape, release.spec.compile.deadline_minutes)


def compile_fields(ctx: Context, release: Release) -> dict[str, Any]:
    """The fields of the compile job beside its command: bundle, cache, lookup, deadline, history."""
    chosen, build, shape = engine(release.spec.engine), build_of(release), shape_of(release)
    deadline = deadline_of(ctx, release)
    ctx.log.info("Deadline of the compile: %s", deadline.why)
    fields: dict[str, Any] = {
        "bundle": release.plan.bundle_manifest,
        "cache": {
            "kind": chosen.cache,
            "dir": build.cache_dir,
            "prefix": PREFIX,
            "key": shape.configuration,
            # Another image may hold another compiler; its own version is then not known.
            "compiler": "" if release.spec.image else shape.compiler,
            "shared": bool(ctx.settings.compile_cache_claim),
        },
        "deadline": {"seconds": deadline.seconds, "learned": deadline.learned, "why": deadline.why},
        "history": {"key": history_key(shape.engine, shape.target), "shape": shape.to_json()},
    }
    lookup = chosen.lookup_command(release.spec.model.repo, HUB_CACHE, build)
    # A model from elsewhere has its name from whoever wrote the spec: the Hub may know another one by it.
    if lookup is not None and release.spec.model.source is None:
        fields["lookup"] = {"command": list(lookup.argv), "env": dict(lookup.env)}
    return fields


def compile_story(ctx: Context, release: Release) -> tuple[str, dict[str, Any]]:
    """One sentence on how the compile went, and its numbers. ("", {}) where it did not say.

    Raises NotFound where it left no result.
    """
    key = staged_result(staging(release))
    try:
        told = decode(ctx.objects.get(key).body, key).get("compile")
    except CorruptArtifact:
        return "", {}
    if not isinstance(told, dict):
        return "", {}
    return story(told), told


def story(told: dict[str, Any]) -> str:
    """A compile's `compile` document in one sentence."""
    graphs, cache = told.get("graphs") or {}, told.get("cache") or {}
    words = [f"{graphs.get('compiled', 0)} graph(s) compiled, {graphs.get('cached', 0)} from a cache"]
    if cache.get("brought"):
        words.append(f"{cache['brought']} cache entries came from S3")
    if cache.get("kept"):
        words.append(f"{cache['kept']} were kept there")
    if told.get("hub") == "hit":
        words.append("the Hub's cache has this configuration")
    if cache.get("waited_seconds"):
        words.append(f"waited {cache['waited_seconds']:.0f} s for {cache.get('waited_for')}")
    if cache.get("took_over"):
        words.append(f"took over from {cache['took_over']}, which died")
    for name, what in _REMOVED.items():
        if cache.get(name):
            words.append(f"{cache[name]} {what} removed")
    if told.get("retried"):
        words.append("run twice, past a failure in the cache")
    if graphs.get("warnings"):
        words.append(f"{graphs['warnings']} warning(s)")
    sentence = "; ".join(words)
    why = (told.get("deadline") or {}).get("why")
    return f"{sentence}. Deadline {why}" if why else sentence


_REMOVED = {
    "poisoned": "failed entries",
    "broken": "unfinished entries",
    "stale_locks": "stale locks",
    "corrupt": "damaged entries in S3",
}
