"""`trainyard store push` and `pull`: models and bundles through a registry such as ECR."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from trainyard.store.signing import Keyring

console = Console()

Home = Annotated[Path | None, typer.Option(help="State folder of the local stack (default: TRAINYARD_HOME).")]


def push(
    subject: Annotated[str, typer.Argument(help="bundle:FINGERPRINT or model:ORG/NAME@COMMIT.")],
    reference: Annotated[str, typer.Argument(help="REGISTRY/REPOSITORY:TAG.")],
    parallel: Annotated[int, typer.Option(min=1, max=16, help="Blobs at once.")] = 4,
    home: Home = None,
) -> None:
    """Send a model or a bundle from S3 to an OCI registry; blobs that it has are not sent."""
    from trainyard.oci import moving
    from trainyard.oci.references import parse_reference, parse_subject
    from trainyard_cli.records import objects
    from trainyard_cli.stack import stack

    stack(home).adopt()
    with _told("push"):
        wanted = parse_subject(subject), parse_reference(reference, tag_needed=True)
        with _Bar("push") as bar:
            moved = moving.push(objects(), *wanted, keyring=_trusted(), parallel=parallel, progress=bar.add)
        place = wanted[1]
        _say(
            f"{moved.subject} is {place.registry}/{place.repository}@{moved.digest} ({place.tag}): "
            f"{moved.sent} blobs sent ({moved.bytes} bytes), {moved.present} were there."
        )


def pull(
    reference: Annotated[str, typer.Argument(help="REGISTRY/REPOSITORY:TAG or …@sha256:DIGEST.")],
    parallel: Annotated[int, typer.Option(min=1, max=16, help="Blobs at once.")] = 4,
    home: Home = None,
) -> None:
    """Bring a model or a bundle from an OCI registry into S3, verified; the manifest comes last."""
    from trainyard.oci import moving
    from trainyard.oci.references import parse_reference
    from trainyard_cli.records import objects
    from trainyard_cli.stack import stack

    stack(home).adopt()
    with _told("pull"):
        wanted = parse_reference(reference)
        with _Bar("pull") as bar:
            moved = moving.pull(objects(), wanted, keyring=_trusted(), parallel=parallel, progress=bar.add)
        stands = "published" if moved.created else "stood there already"
        _say(
            f"{moved.subject} {stands}: {moved.sent} blobs fetched ({moved.bytes} bytes), "
            f"{moved.present} were there."
        )


def _trusted() -> Keyring | None:
    """The public keys that are configured; nothing is signed here: what was signed stays so."""
    from trainyard.settings import Settings
    from trainyard.store.signing import keyring

    return keyring(Settings().public_keys)


class _told:
    """Turns errors that are written for people into a message and exit code 1, without a traceback."""

    def __init__(self, verb: str) -> None:
        self.verb = verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from trainyard.errors import TrainyardError

        if isinstance(error, TrainyardError):
            text = f"{self.verb}: {type(error).__name__}: {error}"
            console.print(text, style="red", soft_wrap=True, markup=False)
            raise typer.Exit(1) from None


class _Bar:
    """Bytes that moved, on a terminal; nothing where nobody looks."""

    def __init__(self, name: str) -> None:
        from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), DownloadColumn(True), TransferSpeedColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task(name, total=None)

    def __enter__(self) -> _Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def add(self, size: int) -> None:
        self.progress.advance(self.task, size)


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
