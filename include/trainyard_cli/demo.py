"""The whole story on one machine, told by the real parts: promoted, promoted over, no-op, rolled back.

Every expectation is checked against what Airflow, the cluster and the ledger say; one that does not hold
makes the exit code 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from trainyard.asking import DAG_ID
from trainyard.kube.cluster import Cluster
from trainyard.kube.traffic import weights_of
from trainyard.settings import Settings
from trainyard_cli import records, releasing
from trainyard_cli.airflow_api import ENDED, Airflow, connect
from trainyard_cli.progress import Ended
from trainyard_cli.stack import REPOSITORY, Stack
from trainyard_cli.streaming import Streamer

MODEL, REPO = "tiny-llama", "trainyard/tiny-llama"
SLOWER = {"slow": 2.5}
# Of its load test, which ends as soon as it is known to be slower: after a few on most machines.
MOST_SECONDS = 30
PATIENCE = 600.0  # until Airflow has done what takes it seconds, and a busy machine minutes


@dataclass
class Story:
    """What is expected, and whether it came so."""

    console: Console
    lines: list[tuple[bool, str]] = field(default_factory=list)

    def expect(self, holds: bool, text: str) -> None:
        self.lines.append((holds, text))
        mark, style = ("✓", "green") if holds else ("✗", "bold red")
        self.console.print(f"[{style}]{mark}[/] {text}", highlight=False, soft_wrap=True)

    @property
    def good(self) -> bool:
        return all(holds for holds, _ in self.lines)


def run(stack: Stack, console: Console) -> int:
    """0 if all went as told."""
    begun = time.monotonic()
    console.rule("[bold]Trainyard: one model, from the Hub to all traffic, and back")
    if stack.supervise("up") != 0:
        return 1
    stack.adopt()
    airflow, story = connect(stack.home), Story(console)
    for dag in (DAG_ID, "model_refresh"):
        airflow.wait_for_dag(dag, PATIENCE)
    with tempfile.TemporaryDirectory() as scratch:
        one = first(airflow, console, story, stack, Path(scratch))
        two = second(airflow, console, story, stack, Path(scratch), one)
        again(airflow, console, story, two)
        third(airflow, console, story, stack, Path(scratch), two)
    _summary(airflow, console, story, stack, time.monotonic() - begun)
    return 0 if story.good else 1


def first(airflow: Airflow, console: Console, story: Story, stack: Stack, scratch: Path) -> Ended:
    console.rule("1. A first revision, asked for over Airflow's REST API")
    revision = publish(stack, scratch, "main")
    wanted = releasing.pin(releasing.request_of(MODEL, None, [], ""))
    run_id, _ = releasing.trigger(airflow, wanted, console)
    ended = releasing.watch(airflow, run_id, console, f"{MODEL} @ {revision[:12]}")
    before = (ended.record or {}).get("previous")
    against = f"judged against {before}" if before else "judged on its objectives alone"
    story.expect(
        _state(ended) == "promoted", f"the first revision was promoted, {against}, in {ended.seconds:.0f} s"
    )
    return ended


def second(
    airflow: Airflow, console: Console, story: Story, stack: Stack, scratch: Path, before: Ended
) -> Ended:
    console.rule("2. A new revision, found by the schedule (model_refresh), while a client streams")
    revision = publish(stack, scratch, "main")
    with Streamer(f"{Settings().gateway_url}/{MODEL}", MODEL) as client:
        run_id = _refresh(airflow, revision)
        ended = releasing.watch(airflow, run_id, console, f"{MODEL} @ {revision[:12]}")
        time.sleep(1.0)
    tally = client.tally
    took_over = (ended.record or {}).get("previous") == (before.record or {}).get("id")
    story.expect(
        _state(ended) == "promoted" and took_over,
        f"the second was promoted over the first in {ended.seconds:.0f} s",
    )
    story.expect(
        tally.complete > 0 and not tally.failed,
        f"{tally.total} streams ran through the gateway meanwhile: {len(tally.failed)} failed or cut"
        + (f" ({'; '.join(sorted(set(tally.failed))[:3])})" if tally.failed else ""),
    )
    return ended


def again(airflow: Airflow, console: Console, story: Story, stable: Ended) -> None:
    console.rule("3. The same release, asked for again")
    record = stable.record or {}
    conf = {"release": MODEL, "revision": (record.get("plan") or {}).get("revision")}
    run = airflow.trigger(DAG_ID, None, conf)
    ended = releasing.watch(airflow, run.run_id, console, "the same again")
    note = airflow.xcom(DAG_ID, run.run_id, "plan", "note") or ""
    worked = [name for name, state in ended.tasks.items() if state == "success" and name != "plan"]
    story.expect(
        ended.state == "success" and not worked and "Nothing to do" in note,
        f"nothing was done, in {ended.seconds:.0f} s: {note}",
    )


def third(
    airflow: Airflow, console: Console, story: Story, stack: Stack, scratch: Path, stable: Ended
) -> None:
    console.rule("4. A revision whose server is slower, by `trainyard release`")
    revision = publish(stack, scratch, "slower")
    good = (stable.record or {}).get("id", "")
    pods = _pods(good)
    # A knob of the local shims, carried by an annotation; on EKS nobody reads it.
    knob = f'serving.annotations."local.trainyard.dev/faults"={json.dumps(SLOWER)}'
    sets = ["--set", knob, "--set", f"rollout.load.duration_seconds={MOST_SECONDS}"]
    words = ["release", MODEL, "--revision", "slower", *sets, "--home", str(stack.home)]
    code = subprocess.call([sys.executable, "-m", "trainyard_cli.main", *words], cwd=REPOSITORY)
    newest = next((item for item in records.releases(MODEL) if item.plan.revision == revision), None)
    story.expect(
        code == 1 and newest is not None and newest.state == "rolled_back",
        f"the slower one was rolled back: {_briefly(newest.outcome) if newest else 'no record was found'}",
    )
    if newest is None:
        return
    reasons = [check["text"] for verdict in newest.verdicts.values() for check in verdict["checks"]
               if check["outcome"] == "fail"]  # fmt: skip
    story.expect(
        any(" x the baseline's " in reason for reason in reasons),
        f"the report says what and by how much: {reasons[0] if reasons else 'nothing'}",
    )
    story.expect(
        weights() == {good: 100} and _pods(good) == pods != {},
        f"stable is untouched: {good} has all traffic, the same pods, no restart",
    )
    story.expect(not _pods(newest.id), "the slower one's pods are gone")


def _refresh(airflow: Airflow, revision: str) -> str:
    """Triggers model_refresh as its schedule does, and returns the run that it started."""
    refresh = airflow.trigger("model_refresh", None, {})
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for run in airflow.runs(DAG_ID):
            if run.run_id.startswith(f"{MODEL}__{revision[:12]}"):
                return run.run_id
        if airflow.run("model_refresh", refresh.run_id).state in ENDED:
            time.sleep(1)
        time.sleep(0.5)
    raise TimeoutError(
        f"model_refresh triggered no release of {revision[:12]} in {PATIENCE:.0f} s: "
        f"see {airflow.url}/dags/model_refresh"
    )


def publish(stack: Stack, scratch: Path, branch: str) -> str:
    """Makes a checkpoint (same config, new weights) and publishes it on the local Hub. Returns its commit
    SHA."""
    hub = stack.home / "hub"
    seed = str(sum(1 for _ in hub.glob(f"{REPO}/commits/*")) + 1)
    folder = scratch / seed
    subprocess.run(
        [sys.executable, "-m", "local.checkpoints", str(folder), "--seed", seed],
        cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "local.hub", "publish", "--root", str(hub), "--repo", REPO,
         "--from", str(folder), "--branch", branch],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip().splitlines()[-1]


def _briefly(outcome: str) -> str:
    """What and where; why is said on its own."""
    return ": ".join(outcome.split(": ")[:2])


def _state(ended: Ended) -> str:
    return str((ended.record or {}).get("state"))


def connect_cluster() -> Cluster:
    from kubernetes import config

    extra = json.loads(os.environ["AIRFLOW_CONN_KUBERNETES_DEFAULT"])["extra"]
    airflow = Path(extra["kube_config_path"])
    # Who looks is a person, with a person's rights: what Airflow's account asks for is its own affair.
    people = airflow.with_name("kubeconfig")
    return Cluster(config.new_client_from_config(str(people if people.is_file() else airflow)))


def weights(model: str = MODEL) -> dict[str, int]:
    return weights_of(connect_cluster().find("HTTPRoute", model, Settings().serving_namespace))


def _pods(release: str) -> dict[str, int]:
    """Restarts by pod uid."""
    found = connect_cluster().list(
        "Pod", Settings().serving_namespace, labels=f"trainyard.dev/release={release}"
    )
    return {
        pod["metadata"]["uid"]: sum(
            item.get("restartCount", 0) for item in pod["status"].get("containerStatuses") or []
        )
        for pod in found
        if not pod["metadata"].get("deletionTimestamp")
    }


def _summary(airflow: Airflow, console: Console, story: Story, stack: Stack, seconds: float) -> None:
    table = Table.grid(padding=(0, 1))
    for holds, text in story.lines:
        table.add_row("[green]✓[/]" if holds else "[bold red]✗[/]", text)
    password = json.loads((stack.home / "airflow-credentials.json").read_text())
    console.print(
        Panel(table, title=f"{'All as told' if story.good else 'Something went otherwise'}, {seconds:.0f} s")
    )
    for folder in _reports(stack):
        console.print(f"report    {folder}", soft_wrap=True, highlight=False)
    console.print(
        f"Airflow   {airflow.url}   user {password['username']}, password {password['password']}",
        soft_wrap=True,
    )
    console.print(
        f"model     {Settings().gateway_url}/{MODEL}/v1   (OpenAI's protocol)",
        soft_wrap=True,
        highlight=False,
    )
    console.print("The stack stays up to play with; make down stops it.")


def _reports(stack: Stack) -> list[Path]:
    """Copies the newest reports out of S3, so that a browser can open them without a login."""
    folder, out = stack.home / "reports", []
    folder.mkdir(exist_ok=True)
    for release in reversed(records.releases(MODEL)[:3]):
        stored: Any = records.objects().get_or_none(f"reports/{MODEL}/{release.id}.html")
        if stored is not None:
            path = folder / f"{release.id}.html"
            path.write_bytes(stored.body)
            out.append(path)
    return out
