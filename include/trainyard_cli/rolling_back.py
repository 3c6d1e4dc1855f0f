"""The way back: stop what runs, or ask for an earlier release again."""

from __future__ import annotations

from rich.console import Console

from trainyard.asking import DAG_ID, Ask, ask
from trainyard.errors import NotFound
from trainyard.settings import Settings
from trainyard.spec import FIXED, Request
from trainyard_cli import records
from trainyard_cli.airflow_api import Airflow


def stop_running(airflow: Airflow, model: str, console: Console) -> bool:
    """Stops the release of the model that runs now, if one does; its own teardown restores stable."""
    for found in records.releases(model):
        if found.state == "running":
            airflow.stop(DAG_ID, found.run)
            console.print(
                f"{found.id} is stopped (run {found.run}); its roll_back task gives all traffic to stable."
            )
            return True
    return False


def way_back(model: str, to: str | None) -> Ask:
    """The request that brings an earlier release back: its spec, its revision. Its bundle is in S3 already.

    Raises NotFound where there is nothing to go back to.
    """
    channel = records.channel(model)
    target = to or channel.previous
    if target is None:
        raise NotFound(f"{model} has no earlier release to go back to.")
    old = records.release(model, target)
    overrides = old.spec.model_dump(mode="json", exclude=set(FIXED))
    # Named after what is left and when it came, so that the same wish twice is one release.
    request = f"back-from-{channel.stable}"[:56] + f"-{channel.token}"
    wish = Request(release=model, revision=old.plan.revision, overrides=overrides, request=request)
    return ask(Settings().releases_dir, wish, old.plan.revision)
