"""What another judge would have said: every phase of a recorded release, from its raw samples in the bucket.

Nothing is written. The verdicts of the record stay what they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trainyard.errors import CorruptArtifact, Inconclusive, NotFound
from trainyard.release import Release
from trainyard.rollout.verdict import Objectives, Outcome, Verdict, conclude
from trainyard.rollout.watch import Watch, observe
from trainyard.stages.load import PHASE
from trainyard.stages.measure import objectives_of, verdict_on
from trainyard.stages.measured import gather
from trainyard.stages.step import phase_of
from trainyard.store.objects import Objects


@dataclass(frozen=True)
class Margins:
    """Instead of the release's own; None keeps those. max_ratio: by metric, those left out keep theirs."""

    max_ratio: Mapping[str, float] | None = None
    alpha: float | None = None
    min_samples: int | None = None
    ttft_p95_seconds: float | None = None
    itl_p95_seconds: float | None = None
    max_error_rate: float | None = None

    def laid_over(self, own: Objectives) -> Objectives:
        """Raises Refused for a margin that is none."""
        changes = {
            "max_ratio": {**own.max_ratio, **self.max_ratio} if self.max_ratio else None,
            "confidence": 1 - self.alpha if self.alpha is not None else None,
            "min_samples": self.min_samples,
            "ttft_p95_seconds": self.ttft_p95_seconds,
            "itl_p95_seconds": self.itl_p95_seconds,
            "max_error_rate": self.max_error_rate,
        }
        return replace(own, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Replayed:
    """recorded: what the release's own judge said; None where it never got to it. parts: runs of the load
    test that were pooled. watch: when the canary could have been stopped at the earliest."""

    phase: str
    recorded: Outcome | None
    verdict: Verdict
    parts: int
    watch: Watch | None


def replay(objects: Objects, release: Release, margins: Margins) -> list[Replayed]:
    """In order of time; phases that were never measured are left out. Raises Refused, StoreUnavailable."""
    objectives = margins.laid_over(objectives_of(release))
    weights = {PHASE: None} | {
        phase_of(number): step.weight for number, step in enumerate(release.spec.rollout.steps, start=1)
    }
    found = []
    for phase, weight in weights.items():
        recorded = release.verdicts.get(phase, {}).get("outcome")
        try:
            data = gather(objects, release, phase)
        except Inconclusive:
            if recorded is None:
                continue
            found.append(_without_samples(phase, recorded, "its samples are no longer in the bucket"))
            continue
        except (NotFound, CorruptArtifact) as error:
            found.append(_without_samples(phase, recorded, str(error)))
            continue
        device = release.verdicts.get(phase, {}).get("device")
        verdict = verdict_on(release, data, objectives, weight, device)
        found.append(Replayed(phase, recorded, verdict, data.parts, observe(data.samples, objectives)))
    return found


def _without_samples(phase: str, recorded: Outcome | None, why: str) -> Replayed:
    verdict = conclude(())
    return Replayed(phase, recorded, replace(verdict, summary=f"inconclusive: {why}"), 0, None)
