"""`trainyard`: up, down, status, doctor, plan, release, rollback, judge, bench, demo, store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from trainyard_cli import store
from trainyard_cli.bench_command import bench
from trainyard_cli.stack import Stack, stack

if TYPE_CHECKING:
    from trainyard_cli.airflow_api import Airflow

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Brings language models into service on AWS Trainium and Inferentia, and back.",
)
app.add_typer(store.app, name="store")
console = Console()
complaints = Console(stderr=True)  # what a program reads on standard output stays whole

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
def plan(
    spec: Annotated[
        str,
        typer.Argument(
            help="An entry of the catalogue, or a YAML file that may lack engine, instance and TP."
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="A config.json, or a folder with one: offline, without the Hub.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Instead of the spec's.")] = None,
    instance_type: Annotated[str | None, typer.Option(help="Instead of the spec's.")] = None,
    tp: Annotated[int | None, typer.Option(help="Tensor-parallel degree, instead of the spec's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Batch size, instead of the spec's.")] = None,
    sequence: Annotated[
        int | None, typer.Option(help="Tokens, prompt and answer, instead of the spec's.")
    ] = None,
    prices: Annotated[Path | None, typer.Option(help="A price table of your own (YAML or JSON).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    hub: Annotated[
        bool, typer.Option("--hub", help="Ask the Hub about the model; so it is where --config is not given.")
    ] = False,
    home: Home = None,
) -> None:
    """Say if a spec can run, where, for how long and how much; exits 0 if it can, 1 if not, 2 if misasked."""
    from trainyard_cli.plan_question import Options
    from trainyard_cli.planning import run

    if hub and config is not None:
        raise typer.BadParameter("ask the Hub, or read a config: one of them", param_hint="--hub")
    if config is None:
        stack(home).adopt()  # where a local stack is, its Hub is asked
    asked = Options(engine, instance_type, tp, batch, sequence)
    raise typer.Exit(run(spec, asked, console, config=config, prices=prices, as_json=as_json))


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
def judge(
    release: Annotated[str, typer.Argument(help="Release id, or a model for its newest release.")],
    max_ratio: Annotated[
        list[str] | None,
        typer.Option(help="How many times the baseline's is still good: 1.1 for all, ttft=1.3 for one."),
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="How often it may be wrong.")] = None,
    min_samples: Annotated[int | None, typer.Option(help="Requests an arm.")] = None,
    ttft_p95: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    itl_p95: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    max_error_rate: Annotated[float | None, typer.Option(help="0 to 1.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Whose release it is, for one of another catalogue.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    home: Home = None,
) -> None:
    """Judge a recorded release anew from raw samples; exits 0 if all passes, 1 if not, 2 if unmeasured."""
    from trainyard.stages.replay import Margins
    from trainyard_cli import judging

    stack(home).adopt()
    with _plain_errors():
        margins = Margins(
            judging.ratios(max_ratio or []), alpha, min_samples, ttft_p95, itl_p95, max_error_rate
        )
        raise typer.Exit(judging.run(console, release, margins, model=model, as_json=as_json))


@app.command()
def doctor(
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Look with this kubeconfig, not with Airflow's connections.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    account: Annotated[
        str | None,
        typer.Option("--as", help="With a kubeconfig: whose rights to ask for; '' for your own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    home: Home = None,
) -> None:
    """Check a cluster, bucket and Hub; exits 1 if something is broken, and says how to mend it."""
    from trainyard_cli import doctor as doctoring

    stack(home).adopt()
    whose = doctoring.AIRFLOWS_ACCOUNT if account is None else account
    raise typer.Exit(
        doctoring.run(console, kubeconfig=kubeconfig, context=context, account=whose, as_json=as_json)
    )


app.command()(bench)


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
            complaints.print(f"{type(error).__name__}: {error}", style="red", soft_wrap=True, markup=False)
            raise typer.Exit(1) from None
        if isinstance(error, httpx.TransportError):
            complaints.print(
                f"Airflow cannot be reached ({error}). Is it up? make up", style="red", markup=False
            )
            raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
