"""The record of one release: the only thing that flows through the stages. It lives in the ledger, in S3."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trainyard.spec import Spec

SCHEMA = 1

State = Literal["running", "promoted", "rolled_back", "failed"]
StageState = Literal["running", "done", "skipped", "failed"]


class Part(BaseModel):
    # Records outlive the code that wrote them: a field that a newer version added is carried along, not
    # refused.
    model_config = ConfigDict(frozen=True, extra="allow")


class Plan(Part):
    """The spec, resolved and pinned."""

    revision: str = Field(description="Commit SHA, 40 hex digits.")
    fingerprint: str
    fingerprint_inputs: dict[str, Any]
    engine: str
    image: str
    chips: int
    lnc: int
    weight_bytes: int
    memory: dict[str, int] = Field(description="Bytes for one logical core.")
    model_type: str = Field("", description="Architecture, as config.json's text part names it.")
    has_weights: bool = Field(description="The bundle holds the weights: servers need no model beside it.")
    model_manifest: str = Field(description="S3 key.")
    bundle_manifest: str = Field(description="S3 key.")
    abort_plan: str = Field("", description="How stable is restored, said before the first shift.")


class StageRecord(Part):
    state: StageState
    started_at: str
    finished_at: str | None = None
    note: str = ""
    data: dict[str, Any] = Field(default_factory=dict)


class Failure(Part):
    stage: str
    error: str
    message: str


class Weights(Part):
    """What the route said at a time: percent by release id."""

    at: str
    percent: dict[str, int]
    observed: dict[str, float] | None = None


class Release(Part):
    schema_: int = Field(SCHEMA, alias="schema")
    id: str
    model: str
    run: str = Field(description="The DAG run that carries it.")
    request: str = ""
    spec: Spec
    plan: Plan
    state: State = "running"
    lease_token: int
    created_at: str
    updated_at: str
    previous: str | None = Field(None, description="The stable release that served when this one began.")
    channel: str | None = Field(
        None, description="What the channel named then; not served where the cluster had lost it."
    )
    stages: dict[str, StageRecord] = Field(default_factory=dict)
    weights: tuple[Weights, ...] = ()
    verdicts: dict[str, dict[str, Any]] = Field(default_factory=dict)
    failure: Failure | None = None
    outcome: str = ""
    links: dict[str, str] = Field(default_factory=dict)

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    def document(self) -> dict[str, Any]:
        """The JSON form that the ledger keeps."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def workload(self) -> str:
        """Name of its Deployment and Service."""
        return self.id


def parse_release(document: dict[str, Any]) -> Release:
    return Release.model_validate(document)


def now() -> str:
    """UTC, in ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reason(failure: dict[str, Any]) -> str:
    """Why a release ended as it did, in one sentence: the first line of its failure."""
    if not failure:
        return "the run was stopped."
    first = str(failure["message"]).strip().split("\n")[0][:300]
    return f"{failure['error']} in {failure['stage']}: {first}"
