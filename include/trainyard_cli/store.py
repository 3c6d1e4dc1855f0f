"""`trainyard store`: what lies in the bucket."""

from __future__ import annotations

import typer

from trainyard_cli import adding, bucket, oci

app = typer.Typer(no_args_is_help=True, help="Models and bundles in S3.")
app.command("ls")(bucket.list_)
app.command("du")(bucket.usage)
app.command("verify")(bucket.verify)
app.command("gc")(bucket.collect)
app.command("sign")(bucket.sign)
app.command()(adding.add)
app.command()(oci.push)
app.command()(oci.pull)
