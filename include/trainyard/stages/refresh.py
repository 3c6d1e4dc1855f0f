"""What the schedule does for one entry of the catalogue: is there a revision that was not released yet?"""

from __future__ import annotations

from trainyard import catalogue
from trainyard.asking import Ask, ask
from trainyard.release import Release, parse_release
from trainyard.spec import Spec, parse_request
from trainyard.stages.context import Context, Skip
from trainyard.stages.plan import origin_of


def run(ctx: Context, name: str) -> Ask | Skip:
    """Resolves the tracked revision. Skip where this content was asked for before, whatever came of it.

    A revision that was rolled back is not tried again by the clock: that is for a person to ask.
    """
    request = parse_request({"release": name})
    spec = catalogue.resolve(ctx.settings.releases_dir, request)
    revision = origin_of(ctx, spec).pin()
    for found in ctx.ledger.list(name):
        release = parse_release(found.document)
        if release.plan.revision == revision and _same(release, spec) and not release.request:
            return Skip(
                f"{name}: {spec.model.source or spec.model.revision} is {revision[:12]} still, "
                f"which is {release.id} ({release.state})"
            )
    return ask(ctx.settings.releases_dir, request, revision)


def _same(release: Release, spec: Spec) -> bool:
    """Whether a release serves what the entry says now; objectives and steps do not count."""
    here, there = spec.model_dump(mode="json"), release.spec.model_dump(mode="json")
    parts = ("engine", "image", "hardware", "compile", "serving")
    same = (spec.model.repo, spec.model.source) == (release.spec.model.repo, release.spec.model.source)
    return same and all(here[part] == there[part] for part in parts)
