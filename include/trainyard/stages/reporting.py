"""Gathers what a release left (record, verdicts, samples) and writes the report that people read."""

from __future__ import annotations

import contextlib
from typing import Any

from trainyard.bench.samples import Sample
from trainyard.errors import CorruptArtifact, NotFound
from trainyard.release import Release
from trainyard.report.data import render_json
from trainyard.report.document import Report, from_record
from trainyard.report.html import render_html
from trainyard.report.thinning import Thinned
from trainyard.stages.context import Context
from trainyard.stages.measured import counted, summaries

# Plots of more points say no more, and the page has to open on a phone.
_MOST_SAMPLES = 8_000


def report_key(release: Release, kind: str = "html") -> str:
    return f"reports/{release.model}/{release.id}.{kind}"


def write_report(ctx: Context, release: Release) -> Report:
    """Writes the page to `report_key`, and beside it the same as JSON. Written again they are written over:
    the report follows the record."""
    report = make_report(ctx, release)
    ctx.objects.put(report_key(release, "json"), render_json(report).encode())
    ctx.objects.put(report_key(release), render_html(report).encode())
    return report


def make_report(ctx: Context, release: Release) -> Report:
    """What is known of the release now; also while it runs."""
    samples = {phase: _samples(ctx, release, phase) for phase in release.verdicts}
    return from_record(release.document(), samples, devices=_devices(release))


def _samples(ctx: Context, release: Release, phase: str) -> list[Sample]:
    """Few enough to draw: a page is made anew at each request. The figures beside them are of all, and of
    the same parts: rows of a generator that was too slow, or of a pod that was lost, are in neither."""
    rows = Thinned(_MOST_SAMPLES)
    try:
        for part, _ in counted(list(summaries(ctx.objects, release, phase))):
            with contextlib.suppress(NotFound):
                rows.add_packed(ctx.objects.get(f"{part}samples.ndjson.gz").body)
    except CorruptArtifact as error:
        ctx.log.warning("%s of %s is drawn without its samples: %s", phase, release.id, error)
    return rows.samples()


def _devices(release: Release) -> list[dict[str, Any]]:
    stage = release.stages.get("device_health")
    if stage is None:
        return []
    if stage.state != "done":
        return [
            {
                "name": release.id,
                "state": "unknown" if stage.state == "running" else "unhealthy",
                "text": stage.note,
            }
        ]
    return [
        {
            "name": pod,
            "state": "healthy",
            "text": f"{facts['devices']} device(s), {facts['ecc_uncorrected']} uncorrected ECC errors in "
            "all, "
            f"{facts['device_memory_bytes'] / 1e6:.0f} MB of device memory in use",
        }
        for pod, facts in stage.data.items()
    ]
