"""Goodput: the requests that met every objective, and nothing else. docs/load-figures.md has the formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.bench.samples import Sample


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds that one request may take; None: no such objective.

    ttft and e2e count from when the request was due. itl is held against the request's own mean, its TPOT:
    one request has no p95 worth the name, and other tools' goodput is counted so too.
    """

    ttft: float | None = None
    itl: float | None = None
    e2e: float | None = None

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.ttft, self.itl, self.e2e))

    def met(self, sample: Sample) -> bool | None:
        """None: it was stopped before anybody could know."""
        taken = {"ttft": sample.ttft_from_intended, "itl": sample.tpot, "e2e": sample.e2e_from_intended}
        if sample.censored:
            # Its e2e is how long it was watched. Whoever waited longer than allowed has been failed already.
            watched = taken["e2e"] or 0.0
            first = taken["ttft"] if taken["ttft"] is not None else watched
            late = [(first, self.ttft), (watched, self.e2e)]
            return False if any(limit is not None and value > limit for value, limit in late) else None
        if not sample.ok:
            return False
        pairs = [(taken[name], getattr(self, name)) for name in taken]
        # An answer of one token has no TPOT, and no way to be slow in it.
        return all(value is None or limit is None or value <= limit for value, limit in pairs)

    def to_dict(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Limits:
        """Keys that are no limit are left out."""
        return cls(**{key: document[key] for key in ("ttft", "itl", "e2e") if document.get(key) is not None})


def goodput(samples: Sequence[Sample], limits: Limits, seconds: float) -> dict[str, Any]:
    """seconds: what the arm's other rates are divided by. share: of the requests of which it is known; None
    without one."""
    found = [(sample, limits.met(sample)) for sample in samples]
    good = [sample for sample, met in found if met]
    known = sum(met is not None for _, met in found)
    tokens = sum(sample.output_tokens or 0 for sample in good)
    return {
        "limits": limits.to_dict(),
        "requests": len(good),
        "share": round(len(good) / known, 6) if known else None,
        "requests_per_second": round(len(good) / seconds, 3) if seconds else 0.0,
        "output_tokens_per_second": round(tokens / seconds, 3) if seconds else 0.0,
    }
