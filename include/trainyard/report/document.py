"""What a report is made of: plain data, from a document (`from_dict`) or the ledger (`from_record`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainyard.bench.samples import Sample
from trainyard.rollout.verdict import Verdict

OUTCOMES = {
    "promoted": "pass", "no-op": "pass", "rolled_back": "fail", "failed": "fail",
    "measured": "pass", "unanswered": "fail",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One bar of the pipeline. Times are ISO 8601; finished_at is None while it runs."""

    name: str
    state: str = "done"
    started_at: str | None = None
    finished_at: str | None = None
    note: str = ""

    @property
    def begin(self) -> float | None:
        return _seconds(self.started_at)

    @property
    def end(self) -> float | None:
        return _seconds(self.finished_at)


@dataclass(frozen=True, kw_only=True)
class Weight:
    """Percent of the traffic by release, from `at` on."""

    at: str
    percent: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One measurement and its verdict. summary: as the load test wrote it."""

    name: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Device:
    """state: healthy, unhealthy or unknown."""

    name: str
    state: str
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """outcome: promoted, rolled_back, failed, running; of a load test measured, unanswered or
    invalid. reason: one
    sentence. facts, links: shown in order."""

    release: str
    model: str
    outcome: str
    reason: str = ""
    canary: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    timeline: tuple[Stage, ...] = ()
    weights: tuple[Weight, ...] = ()
    phases: tuple[Phase, ...] = ()
    devices: tuple[Device, ...] = ()
    log: tuple[str, ...] = ()

    @property
    def tone(self) -> str:
        """The colour of the outcome, named like a verdict."""
        return OUTCOMES.get(self.outcome, "inconclusive")

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Report:
        """`{"release": {"id", "model", "outcome", "reason", "facts", "links", ...}, "timeline": [stage, ...],
        "weights": [{"at", "percent"}], "phases": [{"name", "summary", "verdict", "samples"}],
        "devices": [...], "log": [line, ...]}`. Everything but `release` may be missing.
        """  # fmt: skip
        head = document["release"]
        return cls(
            release=str(head["id"]),
            model=str(head["model"]),
            outcome=str(head.get("outcome") or "running"),
            reason=str(head.get("reason") or ""),
            canary=str(head["id"]),
            started_at=head.get("started_at"),
            finished_at=head.get("finished_at"),
            facts={str(key): str(value) for key, value in (head.get("facts") or {}).items()},
            links={str(key): str(value) for key, value in (head.get("links") or {}).items()},
            timeline=tuple(_stage(stage) for stage in document.get("timeline") or ()),
            weights=tuple(
                Weight(at=weight["at"], percent=dict(weight["percent"]))
                for weight in document.get("weights") or ()
            ),
            phases=tuple(_phase(phase) for phase in document.get("phases") or ()),
            devices=tuple(
                Device(name=str(one["name"]), state=str(one["state"]), text=str(one.get("text") or ""))
                for one in document.get("devices") or ()
            ),
            log=tuple(str(line) for line in document.get("log") or ()),
        )


def from_record(
    record: Mapping[str, Any],
    samples: Mapping[str, Iterable[Sample]],
    *,
    devices: Iterable[Mapping[str, Any]] = (),
    log: Iterable[str] = (),
) -> Report:
    """A report of a ledger record (its JSON form). samples: by phase; a phase without any has no plots."""
    plan, failure = record.get("plan") or {}, record.get("failure") or {}
    facts = {
        "Model": record.get("model"),
        "Revision": plan.get("revision"),
        "Fingerprint": plan.get("fingerprint"),
        "Engine": plan.get("engine"),
        "Image": plan.get("image"),
        "Neuron chips": plan.get("chips"),
        "Instance": ((record.get("spec") or {}).get("hardware") or {}).get("instance_type"),
        "Previous release": record.get("previous"),
        "Asked for by": record.get("request"),
        "DAG run": record.get("run"),
    }
    verdicts: Mapping[str, Mapping[str, Any]] = record.get("verdicts") or {}
    reason = record.get("outcome") or failure.get("message") or ""
    state = record.get("state") or "running"
    return Report.from_dict(
        {
            "release": {
                "id": record["id"],
                "model": record["model"],
                "outcome": state,
                "reason": str(reason).strip().split("\n")[0],
                "started_at": record.get("created_at"),
                "finished_at": record.get("updated_at") if state != "running" else None,
                "facts": {key: value for key, value in facts.items() if value not in (None, "")},
                "links": record.get("links"),
            },
            # The ledger keeps keys in order of the alphabet; people read a pipeline in order of time.
            "timeline": sorted(
                ({"name": name, **stage} for name, stage in (record.get("stages") or {}).items()),
                key=lambda stage: (str(stage.get("started_at") or ""), str(stage.get("finished_at") or "")),
            ),
            "weights": record.get("weights"),
            "phases": [
                {
                    "name": name,
                    "summary": found.get("summary") if isinstance(found.get("summary"), Mapping) else {},
                    "verdict": {**found, "summary": found.get("summary_text") or found.get("summary")},
                    "samples": list(samples.get(name, ())),
                }
                for name, found in verdicts.items()
            ],
            "devices": list(devices),
            "log": [*(f"{failure['stage']}: {failure['error']}",), *failure["message"].split("\n"), *log]
            if failure
            else list(log),
        }
    )


def _stage(stage: Mapping[str, Any]) -> Stage:
    return Stage(
        name=str(stage["name"]),
        state=str(stage.get("state") or "done"),
        started_at=stage.get("started_at"),
        finished_at=stage.get("finished_at"),
        note=str(stage.get("note") or ""),
    )


def _phase(phase: Mapping[str, Any]) -> Phase:
    verdict = phase.get("verdict")
    return Phase(
        name=str(phase["name"]),
        summary=phase.get("summary") or {},
        verdict=verdict if isinstance(verdict, Verdict) or verdict is None else Verdict.from_dict(verdict),
        samples=tuple(
            row if isinstance(row, Sample) else Sample.from_row(row) for row in phase.get("samples") or ()
        ),
    )


def _seconds(text: str | None) -> float | None:
    """Seconds since the epoch of an ISO 8601 time; None where there is none to read."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def epoch(text: str | None) -> float | None:
    return _seconds(text)
