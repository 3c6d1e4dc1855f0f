"""The trigger in the place of a triggerer: real looks at a real API server, by Airflow's own connection."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster as Server
from tests.support.moody import Moody, kubeconfig_of, moody
from tests.support.operators import connect, first_event
from trainyard.kube.cluster import Cluster
from trainyard.kube.servers import deployment
from trainyard.release import now

__all__ = ["moody"]
PATH = "trainyard_airflow.triggers.cluster.ClusterTrigger"


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(autouse=True)
def connection(airflow_home: Path, bare_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(airflow_home))
    connect(monkeypatch, bare_server.kubeconfig)


def trigger(watcher: str, arguments: dict[str, Any], **changes: Any) -> Any:
    module, _, name = PATH.rpartition(".")
    given: dict[str, Any] = {
        "watcher": watcher,
        "arguments": arguments,
        "seconds": 100.0,
        "timeout_error": "CanaryNotReady",
        "poll_seconds": 0.05,
        "kubernetes_conn_id": "kubernetes_tests",
        **changes,
    }
    return getattr(importlib.import_module(module), name)(**given)


def rebuilt(found: Any) -> Any:
    """As the next triggerer makes it, from what Airflow has stored as JSON."""
    path, stored = found.serialize()
    assert path == PATH
    return trigger(**json.loads(json.dumps(stored)))


def test_a_trigger_survives_being_stored_with_every_argument() -> None:
    found = trigger("elapsed", {"until": now(), "words": "x"}, seconds=60.0)
    assert rebuilt(found).serialize() == found.serialize()


def test_the_deadline_is_not_counted_anew_by_the_next_triggerer() -> None:
    found = trigger("elapsed", {"until": now(), "words": "x"}, seconds=60.0, deadline=time.time() + 1.0)
    assert rebuilt(found).deadline == found.deadline


async def test_a_wait_whose_time_was_up_before_the_takeover_ends_at_once() -> None:
    arguments = {"until": "2999-01-01T00:00:00Z", "words": "waiting"}
    event = await first_event(rebuilt(trigger("elapsed", arguments, seconds=5.0, deadline=time.time() - 1)))
    assert (event["status"], event["error"]) == ("failed", "CanaryNotReady")
    assert "Waited 5 s. Last seen: waiting" in event["message"]


async def test_what_is_done_is_told_with_a_note() -> None:
    event = await first_event(trigger("elapsed", {"until": now(), "words": "drained"}))
    assert event == {"status": "done", "note": "drained", "data": {}}


async def test_what_can_never_be_is_told_at_once(space: str) -> None:
    event = await first_event(trigger("capacity_free", {"nodepool": f"no-{space}", "chips": 4}))
    assert (event["status"], event["error"]) == ("failed", "NotFound")
    assert "does not exist" in event["message"]


def server_set(kube: Cluster, space: str) -> dict[str, Any]:
    from tests.support.servers import server_set as smallest

    return kube.apply(deployment(smallest(space)))


def servers(space: str) -> dict[str, Any]:
    return {"namespace": space, "name": "m-1", "labels": "trainyard.dev/release=m-1", "container": "server"}


async def test_servers_that_get_ready_meanwhile_end_the_wait(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    live = server_set(kube, space)
    waiting = asyncio.create_task(first_event(trigger("servers_ready", servers(space))))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    status = {"replicas": 1, "readyReplicas": 1, "observedGeneration": live["metadata"]["generation"]}
    await asyncio.to_thread(
        bare_server.request,
        "PATCH",
        f"/apis/apps/v1/namespaces/{space}/deployments/m-1/status",
        {"status": status},
        media="application/merge-patch+json",
    )
    event = await waiting
    assert event["status"] == "done"
    assert "1 of 1 servers answered a real generation" in event["note"]


async def test_a_wait_that_times_out_says_what_it_saw_last(kube: Cluster, space: str) -> None:
    server_set(kube, space)
    event = await first_event(trigger("servers_ready", servers(space), seconds=0.2))
    assert (event["status"], event["error"]) == ("failed", "CanaryNotReady")
    assert "0 of 1 ready" in event["message"]


async def test_servers_that_were_removed_end_the_wait(space: str) -> None:
    event = await first_event(trigger("servers_ready", servers(space)))
    assert event["error"] == "CanaryNotReady"
    assert "is gone" in event["message"]


async def test_an_api_server_that_is_away_for_a_while_is_waited_for(
    moody: Moody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, kubeconfig_of(moody, tmp_path))
    # One whole look fails, tries and all; then the Deployment is there.
    moody.answers = [(503, {}, {}), None, (500, {}, b"x"), (429, {"Retry-After": "0.1"}, {})]
    ready = {"readyReplicas": 1, "observedGeneration": 1}
    moody.then = (
        200,
        {},
        {"kind": "Deployment", "metadata": {"generation": 1}, "spec": {"replicas": 1}, "status": ready},
    )
    event = await first_event(trigger("servers_ready", servers("x")))
    assert event["status"] == "done"
    assert len(moody.seen) == 5


async def test_an_api_server_that_stays_away_is_a_timeout_with_the_right_name(
    moody: Moody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, kubeconfig_of(moody, tmp_path))
    from trainyard.kube import cluster as module

    monkeypatch.setattr(module.Cluster.__init__, "__kwdefaults__", {"attempts": 1, "sleep": time.sleep})
    moody.then = (503, {}, {})
    event = await first_event(trigger("servers_ready", servers("x"), seconds=0.1))
    assert (event["status"], event["error"]) == ("failed", "CanaryNotReady")
    assert "could not be read" in event["message"]
