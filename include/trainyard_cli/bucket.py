"""`trainyard store ls | du | verify | gc`: what lies in the bucket, for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from trainyard_cli.stack import stack

console = Console()

Home = Annotated[Path | None, typer.Option(help="State folder of the local stack (default: TRAINYARD_HOME).")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


class What(StrEnum):
    models, bundles, releases, channels = "models", "bundles", "releases", "channels"


def list_(
    what: Annotated[What, typer.Argument(help="What to list.")] = What.bundles,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """List models, bundles, releases or channels."""
    from trainyard.store import inventory

    columns = {
        What.models: ("repo", "revision", "files", "bytes", "created_at"),
        What.bundles: ("fingerprint", "engine", "target", "files", "bytes", "weights", "created_at"),
        What.releases: ("model", "release", "state", "updated_at", "kept"),
        What.channels: ("model", "stable", "previous", "token", "updated_at"),
    }
    with _opened(home):
        rows = getattr(inventory, what.value)(_objects(), **_policy(what))
        _show(rows, columns[what], what.value, as_json)


def usage(as_json: AsJson = False, home: Home = None) -> None:
    """Bytes by kind, and by model; what several share is counted once."""
    from trainyard.store import inventory

    with _opened(home):
        found = inventory.usage(_objects())
        if as_json:
            console.print_json(json.dumps({"kinds": found.kinds, "models": found.models}))
            return
        _show(found.kinds, ("kind", "objects", "bytes"), "By kind", False)
        _show(found.models, ("model", "bytes", "own", "shared"), "Blobs by model", False)


def verify(
    manifest: Annotated[
        str | None, typer.Argument(help="Key of one manifest; without it all of them.")
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Read and hash everything that manifests name; exits 1 if something is damaged or missing."""
    from trainyard.store import inventory

    with _opened(home):
        found = inventory.verify(_objects(), manifest)
        if as_json:
            console.print_json(json.dumps(found.to_json()))
        else:
            for fault in found.faults:
                console.print(
                    f"{fault.manifest}: {fault.path}: {fault.why}", style="red", soft_wrap=True, markup=False
                )
            console.print(
                f"{found.manifests} manifests, {found.blobs} blobs, {_size(found.bytes)} read, "
                f"{len(found.faults)} file(s) damaged"
            )
        if found.faults:
            raise typer.Exit(1)


def collect(
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it nothing is changed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go (the default).")] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Delete what nothing names any more; a dry run unless you say --yes."""
    from trainyard.settings import Settings
    from trainyard.stages import housekeeping

    if yes and dry_run:
        raise typer.BadParameter("--yes deletes, --dry-run does not: one of them", param_hint="--yes")
    with _opened(home):
        done = housekeeping.run(_objects(), Settings(), dry_run=not yes)
        if as_json:
            console.print_json(json.dumps({"dry_run": not yes, "note": done.note, **done.data}))
            return
        _show(done.data["freed"], ("kind", "objects", "bytes", "kept", "spared"), "", False)
        console.print(done.note + ("" if yes else ". Nothing was changed; --yes deletes."), soft_wrap=True)


def sign(
    yes: Annotated[bool, typer.Option("--yes", help="Sign. Without it nothing is changed.")] = False,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Also what bears a signature that no trusted key made.")
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Sign manifests and records that lack the current key's signature; exits 1 if some still do."""
    from dataclasses import asdict

    from trainyard.settings import Settings
    from trainyard.store.resigning import resign
    from trainyard.store.signing import Keyring, keyring

    with _opened(home):
        settings = Settings()
        file = settings.signing_key_file
        found = keyring(settings.public_keys, file.read_bytes() if file else None) or Keyring()
        rows = [asdict(each) for each in resign(_objects(), found, change=yes, untrusted=unsigned)]
        _show(rows, ("key", "state", "done", "why"), "", as_json)
        if yes and any(row["state"] not in ("signed", "gone") and not row["done"] for row in rows):
            raise typer.Exit(1)


def _objects() -> Any:
    from trainyard_cli import records

    return records.objects()


def _policy(what: What) -> dict[str, Any]:
    from trainyard.settings import Settings
    from trainyard.stages.housekeeping import policy_of

    return {"policy": policy_of(Settings())} if what is What.releases else {}


def _opened(home: Path | None) -> AbstractContextManager[None]:
    """The stack's credentials where one is, and errors that are written for people without a traceback."""
    from trainyard_cli.main import _plain_errors

    stack(home).adopt()
    return _plain_errors()


def _show(rows: Any, columns: tuple[str, ...], title: str, as_json: bool) -> None:
    listed = list(rows)
    if as_json:
        console.print_json(json.dumps(listed))
        return
    table = Table(*columns, title=title or None, title_justify="left")
    for row in listed:
        table.add_row(*(_cell(name, row.get(name)) for name in columns))
    console.print(table)


def _cell(name: str, value: Any) -> str:
    cells: dict[str, Callable[[Any], str]] = {
        **dict.fromkeys(("bytes", "own", "shared"), _size),
        "revision": lambda text: str(text)[:12],
    }
    return "-" if value is None else cells.get(name, str)(value)


def _size(count: float) -> str:
    from trainyard.stages.housekeeping import size_words

    return size_words(count)
