"""Gathers what a release left (record, verdicts, samples) and writes the report that people read."""

from __future__ import annotations

from typing import Any

from trainyard.bench.samples import Sample, unpack
from trainyard.errors import NotFound
from trainyard.release import Release
from trainyard.report.document import Report, from_record
from trainyard.report.html import render_html
from trainyard.stages.context import Context
from trainyard.stages.measure import prefix

# Plots of more points say no more, and the page has to open on a phone.
_MOST_SAMPLES = 20_000


def report_key(release: Release) -> str:
    return f"reports/{release.model}/{release.id}.html"


def write_report(ctx: Context, release: Release) -> Report:
    """Writes the page to `report_key`. Written again it is written over: the report follows the record."""
    report = make_report(ctx, release)
    ctx.objects.put(report_key(release), render_html(report).encode())
    return report


def make_report(ctx: Context, release: Release) -> Report:
    """What is known of the release now; also while it runs."""
    samples = {phase: _samples(ctx, release, phase) for phase in release.verdicts}
    return from_record(release.document(), samples, devices=_devices(release))


def _samples(ctx: Context, release: Release, phase: str) -> list[Sample]:
    rows: list[Sample] = []
    for info in sorted(ctx.objects.list(prefix(release, phase)), key=lambda item: item.key):
        if not info.key.endswith("/samples.ndjson.gz"):
            continue
        try:
            rows += unpack(ctx.objects.get(info.key).body)
        except NotFound:
            continue
    return rows[:_MOST_SAMPLES]


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
