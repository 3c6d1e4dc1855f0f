"""What the schedule asks of Amazon Bedrock for an entry that names a model of it. Changes no release."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from trainyard import catalogue
from trainyard.bedrock import Bedrock
from trainyard.bedrock_policy import Finding, Step, compare
from trainyard.errors import NotFound, PermanentError, Refused, TransientError
from trainyard.release import now
from trainyard.settings import Settings
from trainyard.spec import Bedrock as Named
from trainyard.spec import Spec, parse_request
from trainyard.stages.context import Context
from trainyard.stages.plan import origin_of
from trainyard.store import keys
from trainyard.store.documents import SCHEMA, encode


def hybrids(settings: Settings) -> list[str]:
    """Followed entries that name a Bedrock model. An entry that cannot be read is none: the task that looks
    for its revisions says what is wrong with it."""
    found = []
    for name in catalogue.followed(settings.releases_dir, settings.follow):
        try:
            spec = catalogue.resolve(settings.releases_dir, parse_request({"release": name}))
        except Refused:
            continue
        if spec.bedrock is not None:
            found.append(name)
    return found


def run(ctx: Context, name: str, make_bedrock: Callable[[str], Bedrock]) -> Step:
    """Looks, and leaves what was seen in S3. make_bedrock: the seam to a region.

    Raises Refused (the entry), and every TransientError: then it is unknown how the entry stands.
    """
    spec = catalogue.resolve(ctx.settings.releases_dir, parse_request({"release": name}))
    if spec.bedrock is None:
        raise PermanentError(f"{name} names no Bedrock model any more. Nothing is to be done.")
    region = spec.bedrock.region or ctx.settings.region
    try:
        step = _look(ctx, spec, spec.bedrock, make_bedrock(region))
    except TransientError as error:
        _write_unknown(ctx, name, spec.bedrock, region, error)
        raise
    _write(ctx, name, step.document())
    return step


def _look(ctx: Context, spec: Spec, named: Named, bedrock: Bedrock) -> Step:
    offered = bedrock.offered(named.model_id, named.version)
    tracked = stable = None
    problems = []
    if named.revision is not None:
        # What cannot be found must not hide what Bedrock said.
        try:
            tracked = origin_of(ctx, spec).pin()
        except PermanentError as error:
            remedy = "Until then nobody knows whether it is the same model."
            problems.append(Finding("model", f"{spec.model.repo}@{spec.model.revision}", str(error), remedy))
        try:
            stable = _stable_revision(ctx, spec.name)
        except NotFound as error:
            problems.append(Finding("stable", spec.name, str(error), "Release it again."))
    step = compare(named, offered, tracked, stable, region=bedrock.region, now=ctx.clock())
    for problem in problems:
        step = step.adding(problem)
    return step


def _stable_revision(ctx: Context, model: str) -> str | None:
    """The commit that takes the traffic, by channel and ledger; None before the first release."""
    stable = ctx.channels.read(model).stable
    return ctx.load(model, stable).plan.revision if stable else None


def _write_unknown(ctx: Context, name: str, named: Named, region: str, error: TransientError) -> None:
    """Silence is written as such, beside what was seen last."""
    stored = ctx.objects.get_or_none(keys.bedrock(name))
    try:
        last = json.loads(stored.body) if stored else None
    except ValueError:
        last = None
    if isinstance(last, dict) and last.get("state") == "unknown":
        last = last.get("last")
    asked = {"model_id": named.model_id, "version": named.version, "region": region}
    words = f"Unknown: {type(error).__name__}: {error}"
    _write(ctx, name, {"state": "unknown", "words": words, "bedrock": asked, "last": last})


def _write(ctx: Context, name: str, document: dict[str, Any]) -> None:
    """Only the last look counts, so there is nothing to compare with."""
    ctx.objects.put(
        keys.bedrock(name), encode({"schema": SCHEMA, "model": name, "looked_at": now(), **document})
    )
