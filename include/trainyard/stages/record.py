"""record: whatever happened, the ledger says it, a report shows it, and the model's lease is free again."""

from __future__ import annotations

from typing import Any

from trainyard.errors import LeaseLost
from trainyard.release import Release, now, reason
from trainyard.report.text import render_text
from trainyard.stages.context import Context, Done
from trainyard.stages.reporting import report_key, write_report
from trainyard.store.leases import Lease


def run(ctx: Context, release: Release) -> Done:
    """Closes the record, writes the report, gives the lease back. Raises StoreUnavailable (retried)."""
    note = release.outcome
    try:
        release = ctx.change(release, _closing(_url(ctx, release)))
    except LeaseLost as error:
        # Somebody newer looks after the model. The report still tells how this release went.
        note = f"{note} {error}"
    try:
        report = write_report(ctx, release)
        ctx.log.info("%s", render_text(report))
    finally:
        # The record is closed: without its report, too, the next release need not wait.
        ctx.leases.release(Lease(release.model, release.id, release.lease_token, 0.0, release.run))
    return Done(
        f"{release.state.replace('_', ' ')}: {note or release.outcome}",
        {"report": report_key(release), "state": release.state, "outcome": release.outcome},
    )


def _url(ctx: Context, release: Release) -> str:
    """Where Airflow shows the report, behind its login."""
    return f"{ctx.settings.airflow_url}/trainyard/releases/{release.model}/{release.id}/report"


def _closing(url: str) -> Any:
    def change(document: dict[str, Any]) -> None:
        for name, stage in document["stages"].items():
            if stage["state"] == "running" and name != "record":
                # A task that was killed could not say so itself.
                stage.update(
                    state="failed", finished_at=now(), note="The task ended without a word: see its log."
                )
        if document["state"] == "running":
            failure = document["failure"] or {}
            document["state"], document["outcome"] = "failed", f"Failed {now()}: {reason(failure)}"
        document["links"]["Report"] = url

    return change
