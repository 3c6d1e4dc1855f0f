"""`trainyard`: up, down, status, release, rollback, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from trainyard_cli.stack import Stack, stack

if TYPE_CHECKING:
    from trainyard_cli.airflow_api import Airflow

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Brings language models into service on AWS Trainium and Inferentia, and back.",
)
console = Console()

Home = Annotated[Path | None, typer.Option(help="State folder of the local stack (default: TRAINYARD_HOME).")]


@app.command()
def up(
    home: Home = None, kubeconfig: Annotated[Path | None, typer.Option(help="A cluster of your own.")] = None
) -> None:
    """Start the local stack."""
    words = ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
    raise typer.Exit(stack(home).supervise("up", *words))


@app.command()
def down(home: Home = None) -> None:
    """Stop the local stack, and whatever it left behind."""
    raise typer.Exit(stack(home).supervise("down"))


@app.command()
def status(home: Home = None) -> None:
    """Services, settings, and what serves now."""
    from trainyard_cli.status import show

    found = stack(home)
    code = found.supervise("status")
    if found.adopt():
        show(console)
    raise typer.Exit(code)


@app.command()
def release(
    name: Annotated[str, typer.Argument(help="An entry of the catalogue.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; default: what the entry tracks.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Lay a value over the entry: --set serving.replicas=2.")
    ] = None,
    request: Annotated[str, typer.Option(help="Anything new makes an equal request a new release.")] = "",
    wait: Annotated[bool, typer.Option(help="Follow it to its end.")] = True,
    home: Home = None,
) -> None:
    """Release a model revision; exits 0 only if it serves at the end."""
    from trainyard_cli import releasing

    airflow = _client(home)
    with _plain_errors():
        wanted = releasing.pin(releasing.request_of(name, revision, sets or [], request))
        run_id, _ = releasing.trigger(airflow, wanted, console)
        console.print(f"{airflow.url}/dags/model_release/runs/{run_id}", soft_wrap=True)
        if wait:
            ended = releasing.watch(airflow, run_id, console)
            outcome = (ended.record or {}).get("outcome") or ended.state
            console.print(f"{ended.state}: {outcome}", soft_wrap=True)
            raise typer.Exit(0 if ended.state == "success" else 1)


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="A model of the catalogue.")],
    to: Annotated[
        str | None, typer.Option(help="Release id; default: the one before the stable one.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow it to its end.")] = True,
    home: Home = None,
) -> None:
    """Stop a running release of a model, or bring an earlier one back."""
    from trainyard_cli import releasing
    from trainyard_cli.rolling_back import stop_running, way_back

    airflow = _client(home)
    with _plain_errors():
        if to is None and stop_running(airflow, model, console):
            return
        wanted = way_back(model, to)
        run_id, _ = releasing.trigger(airflow, wanted, console)
        if wait:
            ended = releasing.watch(airflow, run_id, console)
            raise typer.Exit(0 if ended.state == "success" else 1)


@app.command()
def demo(home: Home = None) -> None:
    """The whole story on this machine: promoted, promoted over, no-op, rolled back."""
    from trainyard_cli.demo import run

    raise typer.Exit(run(stack(home), console))


def _client(home: Path | None) -> Airflow:
    from trainyard_cli.airflow_api import connect

    found: Stack = stack(home)
    found.adopt()
    with _plain_errors():
        return connect(found.home)


class _plain_errors:
    """Turns errors that are written for people into a message and exit code 1, without a traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import httpx

        from trainyard.errors import TrainyardError
        from trainyard_cli.airflow_api import ApiError

        if isinstance(error, TrainyardError | ApiError | TimeoutError):
            console.print(f"{type(error).__name__}: {error}", style="red", soft_wrap=True, markup=False)
            raise typer.Exit(1) from None
        if isinstance(error, httpx.TransportError):
            console.print(
                f"Airflow cannot be reached ({error}). Is it up? make up", style="red", markup=False
            )
            raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
