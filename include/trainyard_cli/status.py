"""What `trainyard status` adds to the services: settings, and what serves."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from trainyard import catalogue
from trainyard.errors import TrainyardError
from trainyard.settings import Settings
from trainyard.stages.progress import doing, with_progress
from trainyard_cli import records


def show(console: Console) -> None:
    settings = Settings()
    values = Table("setting", "value", title="Settings (TRAINYARD_*)", title_justify="left")
    for name, value in settings.model_dump(mode="json").items():
        values.add_row(name, str(value))
    console.print(values)
    table = Table(
        "model", "stable", "before it", "last release", "outcome", title="Models", title_justify="left"
    )
    for model in catalogue.names(settings.releases_dir):
        try:
            channel, last = records.channel(model), records.releases(model)[:1]
        except TrainyardError as error:
            table.add_row(model, "?", "?", "?", str(error))
            continue
        newest = with_progress(records.objects(), last[0]) if last else None
        row = (newest.id, newest.outcome or doing(newest) or newest.state) if newest else ("-", "-")
        table.add_row(model, channel.stable or "-", channel.previous or "-", *row)
    console.print(table)
