"""One real stack for all end-to-end tests: real Airflow, scheduler to triggerer, and the local cluster.

With TRAINYARD_KUBECONFIG set the same tests run against that control plane. TRAINYARD_E2E_HOME names a stack
that is up already and stays up (for work on the tests themselves).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from tests.e2e.asked import ENGINES, EYES, FAULTS, MODELS
from tests.e2e.yard import PATIENCE, REPOSITORY, Yard
from trainyard_cli import records
from trainyard_cli.airflow_api import connect
from trainyard_cli.demo import MODEL, publish
from trainyard_cli.stack import stack


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped entry, and copies of it for the faults and the engines: a model each, so that they need
    not wait for each other."""
    folder = tmp_path_factory.mktemp("releases")
    entry = yaml.safe_load((REPOSITORY / "include/releases/tiny-llama.yaml").read_text())
    for name in (MODEL, *MODELS):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**entry, "name": name}, sort_keys=False))
    return folder


@pytest.fixture(scope="session")
def yard(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    given = os.environ.get("TRAINYARD_E2E_HOME")
    home = Path(given) if given else tmp_path_factory.mktemp("home")
    # The schedule must not join in: what is released when is up to the tests.
    os.environ.update(
        TRAINYARD_RELEASES_DIR=str(catalogue),
        TRAINYARD_REFRESH_SCHEDULE="0 0 1 1 *",
        TRAINYARD_HEALTH_SCHEDULE="0 0 1 1 *",
        TRAINYARD_HOUSEKEEPING_SCHEDULE="0 0 1 1 *",
    )
    supervisor = [sys.executable, "-m", "local.stack"]
    up = subprocess.run(
        [*supervisor, "up", "--home", str(home)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert up.returncode == 0, f"the stack did not come up:\n{up.stdout[-3000:]}\n{up.stderr[-2000:]}"
    found = stack(home)
    found.adopt()
    records.objects.cache_clear()
    airflow = connect(home)
    for dag in ("model_release", "model_refresh"):
        airflow.wait_for_dag(dag, PATIENCE)
    try:
        yield Yard(airflow, found, Console(width=200), publish)
    finally:
        if not given:
            subprocess.run([*supervisor, "down", "--home", str(home)], cwd=REPOSITORY, check=False)


@pytest.fixture(scope="session")
def started(yard: Yard) -> dict[str, str]:
    """Run ids by model. All at once: most of a release is waiting."""
    yard.publish(yard.stack, yard.stack.home / "scratch", "main")
    home = yard.stack.home
    made = [sys.executable, "-m", "local.checkpoints", str(home / "scratch/eyes"), "--seed", "1"]
    given = ["--architecture", "qwen3_vl", "--publish", str(home / "hub"), "--repo", EYES]
    subprocess.run([*made, *given], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    asked = {**ENGINES, **FAULTS}
    return {model: yard.ask(model, **overrides) for model, overrides in asked.items()}


@pytest.fixture(scope="session")
def new_weights(yard: Yard, started: dict[str, str]) -> str:
    """Run id of a release of other weights over the promoted graph of on-nxdi."""
    assert yard.follow(started["on-nxdi"]).state == "promoted"
    yard.publish(yard.stack, yard.stack.home / "scratch", "new-weights")
    return yard.ask("on-nxdi", model__revision="new-weights", **ENGINES["on-nxdi"])
