"""What a stage works with, and how it writes to the record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trainyard.errors import LeaseLost, PermanentError, TrainyardError
from trainyard.kube.cluster import Cluster
from trainyard.release import Failure, Release, StageRecord, StageState, now, parse_release
from trainyard.settings import Settings
from trainyard.stages.fencing import fence_route
from trainyard.store.channels import Channels
from trainyard.store.leases import Lease, Leases
from trainyard.store.ledger import Ledger, Versioned
from trainyard.store.objects import Objects
from trainyard.store.signing import Keyring

if TYPE_CHECKING:
    from trainyard.hub import Hub


@dataclass(frozen=True)
class Done:
    """A stage did its work. note: one sentence for people. data: what later stages and the report need."""

    note: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Skip:
    """A stage had nothing to do, and why."""

    note: str


@dataclass(frozen=True)
class Watch:
    """Something to wait for in the cluster: a watcher of kube.watchers with its arguments.

    seconds: how long; then `timeout` (the name of an error class) is raised with the watcher's last words.
    """

    watcher: str
    arguments: Mapping[str, Any]
    seconds: float
    timeout: str


@dataclass
class Context:
    """Seams of one task: S3, cluster, Hub. Made by the Airflow side, or by a test."""

    settings: Settings
    objects: Objects
    cluster: Cluster
    make_hub: Callable[[], Hub]
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("trainyard"))
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    # Signs and checks manifests and records; None where no keys are configured.
    keyring: Keyring | None = None
    # The versions that were read or written last: a change begins with them, and spares reading anew.
    _seen: dict[tuple[str, str], Versioned] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def hub(self) -> Hub:
        return self.make_hub()

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.objects, self.keyring)

    @cached_property
    def channels(self) -> Channels:
        return Channels(self.objects)

    @cached_property
    def leases(self) -> Leases:
        return Leases(self.objects, fence=self._fence_route, ledger=self.ledger)

    def _fence_route(self, model: str, token: int) -> None:
        fence_route(self.cluster, self.settings.serving_namespace, model, token)

    def load(self, model: str, release: str) -> Release:
        """The record as it is in S3 now."""
        return self._saw(model, release, self.ledger.read(model, release))

    def _saw(self, model: str, release: str, version: Versioned) -> Release:
        self._seen[model, release] = version
        return parse_release(version.document)

    def change(self, release: Release, change: Callable[[dict[str, Any]], None]) -> Release:
        """Changes the record by compare-and-swap under the release's token. Raises LeaseLost."""

        def apply(document: dict[str, Any]) -> dict[str, Any]:
            change(document)
            document["updated_at"] = now()
            return document

        known = self._seen.get((release.model, release.id))
        written = self.ledger.update(release.model, release.id, apply, token=release.lease_token, known=known)
        return self._saw(release.model, release.id, written)

    def hold(self, release: Release) -> Lease:
        """Renews the model's lease. Raises LeaseLost: then this release may change nothing any more."""
        lease = Lease(release.model, release.id, release.lease_token, 0.0, release.run)
        return self.leases.renew(lease, self.settings.lease_minutes * 60)

    def begin(self, release: Release, stage: str) -> Release:
        def change(document: dict[str, Any]) -> None:
            old = document["stages"].get(stage) or {}
            document["stages"][stage] = StageRecord(
                state="running", started_at=old.get("started_at") or now()
            ).model_dump(mode="json")

        return self.change(release, change)

    def note(self, release: Release, stage: str, words: str) -> Release:
        """What a stage that runs says of itself meanwhile."""

        def change(document: dict[str, Any]) -> None:
            document["stages"][stage]["note"] = words

        return self.change(release, change)

    def end(self, release: Release, stage: str, result: Done | Skip) -> Release:
        data = dict(result.data) if isinstance(result, Done) else {}
        state: StageState = "done" if isinstance(result, Done) else "skipped"
        return self._close(release, stage, state, result.note, data)

    def fail(self, release: Release, stage: str, error: BaseException) -> None:
        """Writes the failure into the record. The first failure stands: later ones are its echo.

        A holder that lost its lease may not write; its failure is in the task's log.
        """
        name = type(error).__name__
        failure = Failure(stage=stage, error=name, message=str(error)[:8000]).model_dump(mode="json")

        def change(document: dict[str, Any]) -> None:
            document["failure"] = document.get("failure") or failure

        words = next(iter(str(error).splitlines()), "")[:300]
        try:
            closed = self._close(release, stage, "failed", f"{name}: {words}", {})
            self.change(closed, change)
        except LeaseLost as lost:
            self.log.warning("The failure was not recorded: %s", lost)

    def _close(
        self, release: Release, stage: str, state: StageState, note: str, data: dict[str, Any]
    ) -> Release:
        def change(document: dict[str, Any]) -> None:
            started = (document["stages"].get(stage) or {}).get("started_at") or now()
            document["stages"][stage] = StageRecord(
                state=state, started_at=started, finished_at=now(), note=note, data=data
            ).model_dump(mode="json")

        return self.change(release, change)


def ensure_running(release: Release) -> None:
    """Stages of a release that was ended already do nothing more. Raises PermanentError."""
    if release.state != "running":
        raise PermanentError(f"Release {release.id} is {release.state} already: {release.outcome}")
    if release.failure is not None:
        raise PermanentError(
            f"Release {release.id} failed in {release.failure.stage} already: {release.failure.message}"
        )


def error_named(name: str, message: str) -> TrainyardError:
    """Rebuilds an error that crossed a process as (class name, message)."""
    from trainyard import errors

    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, TrainyardError) and kind is not errors.Refused:
        return kind(message)
    return PermanentError(f"{name}: {message}")
