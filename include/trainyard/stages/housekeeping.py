"""housekeeping: deletes what nothing names, and says what that freed. Stands on S3 alone."""

from __future__ import annotations

from collections.abc import Sequence

from trainyard.settings import Settings
from trainyard.stages.context import Done
from trainyard.store.objects import Objects
from trainyard.store.retention import Policy
from trainyard.store.sweep import KINDS, Freed, Sweep


def policy_of(settings: Settings) -> Policy:
    return Policy(
        good=settings.keep_good_releases,
        days=settings.keep_days,
        log_days=settings.keep_log_days,
        cache_days=settings.keep_cache_days,
        grace_hours=settings.sweep_grace_hours,
    )


def run(objects: Objects, settings: Settings, kinds: Sequence[str] = KINDS, *, dry_run: bool) -> Done:
    """Raises LeaseHeld (another sweep runs), LeaseLost, CorruptArtifact, PermanentError."""
    sweep = Sweep(objects, policy_of(settings), dry_run=dry_run)
    freed = [sweep.run(kind) for kind in kinds]
    kept = {f"{model}/{release}": why for (model, release), why in sorted(sweep.roots.releases.items())}
    return Done(say(freed, dry_run), {"freed": [each.to_json() for each in freed], "releases": kept})


def say(freed: Sequence[Freed], dry_run: bool) -> str:
    """One sentence: by kind, and together."""
    total = sum(each.bytes for each in freed)
    parts = []
    for each in freed:
        spared = f", {each.spared} spared" if each.spared else ""
        if each.objects or each.spared:
            parts.append(f"{each.kind} {each.objects} ({size_words(each.bytes)}{spared})")
    what = "would free" if dry_run else "freed"
    if not parts:
        return f"{what} nothing: everything is named, or too young"
    return f"{what} {size_words(total)}: {', '.join(parts)}"


def size_words(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} TiB"
