"""`trainyard store add`: a model into S3 from here, whichever source this machine sees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console()

Home = Annotated[Path | None, typer.Option(help="State folder of the local stack (default: TRAINYARD_HOME).")]


def add(
    source: Annotated[
        str, typer.Argument(help="file:///folder, s3://bucket/prefix or hf://org/name@revision.")
    ],
    repo: Annotated[str | None, typer.Argument(help="ORG/NAME in S3; default: the Hub's name of it.")] = None,
    home: Home = None,
) -> None:
    """Bring a model to S3 from where it lies, and say which revision it is; signed if there is a key."""
    from trainyard.hub import Hub
    from trainyard.jobs.fetch import fetch_from
    from trainyard.settings import Settings
    from trainyard.sources import open_source, parse
    from trainyard.stages.sealing import seal
    from trainyard.store import keys
    from trainyard.store.signing import keyring
    from trainyard_cli.main import _plain_errors
    from trainyard_cli.records import objects
    from trainyard_cli.stack import stack

    stack(home).adopt()
    with _plain_errors():
        address, settings = parse(source, "SOURCE"), Settings()
        if repo is None and address.kind != "hf":
            raise typer.BadParameter("a folder or a prefix has no name: say ORG/NAME", param_hint="REPO")
        name = keys.check_repo("REPO", repo or address.place)
        place = open_source(
            address, objects(), Hub(settings.hub_endpoint, os.environ.get("HF_TOKEN") or None)
        )
        revision = place.pin()
        manifest, files, size = fetch_from(objects(), place, name, revision)
        key = settings.signing_key_file
        ring = keyring(settings.public_keys, key.read_bytes()) if key else None
        if ring is not None:
            seal(objects(), ring, place, name, revision)
        _say(
            f"{name}@{revision} is in S3: {len(manifest.files)} files, {files} of them sent ({size} bytes)"
            f"{', signed' if ring else ''}."
        )
        if address.kind != "hf":
            _say(f"In the spec:\n  model:\n    repo: {name}\n    source: {address}\n    revision: {revision}")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
