"""`trainyard store`: what lies in the bucket."""

from __future__ import annotations

import typer

from trainyard_cli import oci

app = typer.Typer(no_args_is_help=True, help="Models and bundles in S3.")
app.command()(oci.push)
app.command()(oci.pull)
