"""Makes the pages from the ledger, fresh at each request: they follow a release while it runs."""

from __future__ import annotations

import json

from jinja2 import Environment, PackageLoader, select_autoescape

from trainyard import catalogue
from trainyard.errors import NotFound
from trainyard.release import Release, parse_release
from trainyard.report.html import render_html
from trainyard.stages.context import Context
from trainyard.stages.plan import run_key
from trainyard.stages.progress import doing, with_progress
from trainyard.stages.reporting import make_report
from trainyard_airflow import seams


def report_of_run(run_id: str) -> str:
    ctx = seams.context()
    try:
        where = json.loads(ctx.objects.get(run_key(run_id)).body)
    except NotFound:
        raise NotFound(
            f"Run {run_id} has no release: it is not planned yet, was refused (see the log of `plan`), or "
            "had nothing to do."
        ) from None
    return _report(ctx, where["model"], where["release"])


def report_of_release(model: str, release: str) -> str:
    return _report(seams.context(), model, release)


def overview() -> str:
    """Each model of the catalogue: what is stable, and its last releases."""
    ctx = seams.context()
    rows = []
    for model in catalogue.names(ctx.settings.releases_dir):
        found: list[Release] = [parse_release(item.document) for item in ctx.ledger.list(model)]
        found.sort(key=lambda release: release.created_at, reverse=True)
        shown = [with_progress(ctx.objects, release) for release in found[:10]]
        rows.append({"model": model, "channel": ctx.channels.read(model), "releases": shown})
    return _templates().get_template("overview.html").render(rows=rows, doing=doing)


def _report(ctx: Context, model: str, release: str) -> str:
    return render_html(make_report(ctx, with_progress(ctx.objects, ctx.load(model, release))))


def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("trainyard_airflow.web", "templates"), autoescape=select_autoescape(default=True)
    )
