"""Which releases stay ready: no fetch and no compile to bring them back. Pure; the sweep reads the facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """good: promoted releases a model that are kept whatever their age; days: how long everything is kept;
    log_days: logs and samples of releases that are not kept; cache_days: compile caches that nobody wrote;
    grace_hours: what may be part of something that is being written now."""

    good: int = 3
    days: float = 14.0
    log_days: float = 30.0
    cache_days: float = 60.0
    grace_hours: float = 24.0

    @property
    def grace_seconds(self) -> float:
        return self.grace_hours * 3600


@dataclass(frozen=True)
class Fact:
    """What retention needs of a record. at: RFC 3339, of its last change; manifests: keys."""

    model: str
    release: str
    state: str
    at: str
    manifests: tuple[str, ...] = ()
    configuration: str = ""


@dataclass(frozen=True)
class Pointer:
    """A model's channel: stable and previous; holder: of the model's lease, until it gives it
    back; promoted: releases in the order in which they became stable."""

    stable: str | None = None
    previous: str | None = None
    holder: str | None = None
    promoted: tuple[str, ...] = ()


def kept(
    facts: Iterable[Fact], pointers: Mapping[str, Pointer], policy: Policy, oldest: str
) -> dict[tuple[str, str], str]:
    """(model, release) -> why it is kept. oldest: RFC 3339; what changed since is kept (`policy.days`)."""
    by_model: dict[str, list[Fact]] = {}
    for fact in facts:
        by_model.setdefault(fact.model, []).append(fact)
    found: dict[tuple[str, str], str] = {}
    for model, those in by_model.items():
        pointer = pointers.get(model, Pointer())
        for fact in those:
            if why := _why(fact, pointer, oldest):
                found[model, fact.release] = why
        order = {release: number for number, release in enumerate(pointer.promoted)}
        good = [fact for fact in those if fact.state == "promoted"]
        good.sort(key=lambda fact: (order.get(fact.release, -1), fact.at), reverse=True)
        for number, fact in enumerate(good[: policy.good], 1):
            found.setdefault((model, fact.release), f"good release {number} of {policy.good}")
    return found


def _why(fact: Fact, pointer: Pointer, oldest: str) -> str:
    if fact.release == pointer.stable:
        return "stable"
    if fact.release == pointer.previous:
        return "before stable"
    if fact.state == "running" or fact.release == pointer.holder:
        return "running"
    # A newer Trainyard may have states of its own: what is not known to be over is kept.
    if fact.state not in ("promoted", "rolled_back", "failed"):
        return f"state {fact.state}"
    return "young" if fact.at >= oldest else ""
