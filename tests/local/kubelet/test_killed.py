"""A kubelet that is killed leaves nothing behind, and the next one takes over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local.client.kinds import NAMESPACES, NODES, PODS, Obj
from local.kubelet import orphans
from tests.support.cluster import Cluster, api_server, kubelet_arguments, program
from tests.support.processes import left_of, processes

STACK = "tests-of-a-killed-kubelet"


def alive(root: Path) -> list[int]:
    """Processes of containers, and what they left behind; the kubelet itself does not carry its root."""
    return list(orphans.find({orphans.MARKER: STACK, orphans.ROOT: str(root)}))


def test_a_killed_kubelet_s_containers_die_and_the_rest_is_found_by_its_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(orphans.MARKER, STACK)
    with api_server(tmp_path) as cluster:
        arguments = kubelet_arguments(cluster)
        with program(tmp_path, "local.kubelet", *arguments) as kubelet:
            cluster.until("node", lambda: cluster.find(NODES, None, "local-system"))
            run_one(cluster)
            # The container, and a grandchild that left its session.
            cluster.until("both processes", lambda: len(alive(tmp_path / "kubelet")) >= 2)
            main = processes([int((tmp_path / "main").read_text())])
            kubelet.kill()
            kubelet.wait()
            assert not left_of(main), "the container"
            assert alive(tmp_path / "kubelet"), "the process that left the session is what the scan is for"
            orphans.kill_containers(tmp_path / "kubelet")
            assert cluster.until("the rest", lambda: not alive(tmp_path / "kubelet"))
        with program(tmp_path, "local.kubelet", *arguments):
            again = cluster.until("runs again", lambda: running(cluster, restarts=1))
            assert alive(tmp_path / "kubelet")
            last = again["lastState"]["terminated"]
            assert (last["reason"], last["exitCode"]) == ("ContainerStatusUnknown", 137)
        # And a kubelet that is asked to stop takes everything with it.
        cluster.until("the rest", lambda: not alive(tmp_path / "kubelet"))
    assert os.environ[orphans.MARKER] == STACK


def run_one(cluster: Cluster) -> None:
    cluster.until("namespace", lambda: cluster.find(NAMESPACES, None, "default"))
    script = f"echo $$$$ > {cluster.folder}/main; setsid sleep 300 & sleep 300"
    cluster.pod("default", "stays", ["sh", "-c", script], nodeName="local-system", restartPolicy="Always")
    cluster.until("runs", lambda: running(cluster, restarts=0))


def running(cluster: Cluster, restarts: int) -> Obj | None:
    """The container's status entry, once that says that it runs, after so many restarts."""
    pod = cluster.find(PODS, "default", "stays") or {"status": {}}
    (entry,) = pod["status"].get("containerStatuses") or [{"state": {}}]
    return entry if "running" in entry["state"] and entry["restartCount"] == restarts else None
