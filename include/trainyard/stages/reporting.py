"""Gathers what a release left (record, verdicts, samples) and writes the report that people read."""

from __future__ import annotations

from trainyard.bench.samples import unpack
from trainyard.errors import NotFound
from trainyard.release import Release
from trainyard.report import build_report, render_html
from trainyard.stages.context import Context
from trainyard.stages.measure import prefix

_MOST_SAMPLES = 20_000


def report_key(release: Release) -> str:
    return f"reports/{release.model}/{release.id}.html"


def write_report(ctx: Context, release: Release) -> str:
    """Returns its S3 key. Written again it is written over: the report follows the record."""
    key = report_key(release)
    samples = {phase: _samples(ctx, release, phase) for phase in release.verdicts}
    page = render_html(build_report(release.document(), samples))
    ctx.objects.put(key, page.encode())
    return key


def _samples(ctx: Context, release: Release, phase: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for info in sorted(ctx.objects.list(prefix(release, phase)), key=lambda item: item.key):
        if not info.key.endswith("/samples.ndjson.gz"):
            continue
        try:
            rows += [sample.to_row() for sample in unpack(ctx.objects.get(info.key).body)]
        except NotFound:
            continue
    return rows[:_MOST_SAMPLES]
