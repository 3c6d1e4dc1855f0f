"""Logs and exec through the API server, with clients that we did not write."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client
from kubernetes import config as kube_config
from kubernetes.stream import stream

from tests.support.cluster import PATIENCE, Cluster
from tests.support.processes import left_of, processes


@pytest.fixture(scope="module")
def talker(cluster: Cluster) -> Iterator[str]:
    """A pod that has said ten lines and stays."""
    stay = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
    script = f"for i in $(seq 1 10); do echo line $i; done; echo >&2 an error; {stay}"
    cluster.pod("default", "talker", ["sh", "-c", script])
    cluster.phase("default", "talker", "Running")
    cluster.until("lines", lambda: "line 10" in cluster.kubectl("logs", "talker"))
    yield "talker"
    cluster.kubectl("delete", "pod", "talker", "--grace-period=0", "--force", code=None)


def test_logs_can_be_cut_to_their_end_and_stamped(cluster: Cluster, talker: str) -> None:
    cluster.until("stderr", lambda: "an error" in cluster.kubectl("logs", talker))
    assert len(cluster.kubectl("logs", talker).splitlines()) == 11
    assert len(cluster.kubectl("logs", talker, "--tail=3").splitlines()) == 3
    assert cluster.kubectl("logs", talker, "--limit-bytes=6") == "line 1"
    stamped = cluster.kubectl("logs", talker, "--timestamps", "--tail=1")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", stamped)
    assert cluster.kubectl("logs", talker, "--since-time=2999-01-01T00:00:00Z") == ""
    assert len(cluster.kubectl("logs", talker, "--since=1h").splitlines()) == 11


def test_followed_logs_arrive_line_by_line_and_end_with_the_container(
    cluster: Cluster, namespace: str
) -> None:
    flag = cluster.folder / f"{namespace}-go"
    cluster.pod(
        namespace,
        "slow",
        ["sh", "-c", f"echo first; while ! [ -e {flag} ]; do sleep 0.05; done; echo -n last"],
    )
    cluster.phase(namespace, "slow", "Running")
    kubectl = Path(sys.executable).parent / "kubectl"
    command = [str(kubectl), "--kubeconfig", str(cluster.kubeconfig), "-n", namespace, "logs", "-f", "slow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        # The first line is here while the container still waits for the flag.
        assert follower.stdout.readline() == "first\n"
        flag.touch()
        assert follower.stdout.read() == "last"
        assert follower.wait(PATIENCE) == 0


def test_exec_carries_output_input_and_exit_code(cluster: Cluster, talker: str) -> None:
    assert cluster.kubectl("exec", talker, "--", "sh", "-c", "echo out; echo err >&2") == "out\n"
    assert cluster.kubectl("exec", "-i", talker, "--", "cat", stdin="to and fro\n") == "to and fro\n"
    cluster.kubectl("exec", talker, "--", "sh", "-c", "exit 42", code=42)
    cluster.kubectl("exec", talker, "--", "no-such-program", code=None)


def test_exec_of_the_python_client_separates_streams_and_reports_the_code(
    cluster: Cluster, talker: str
) -> None:
    kube_config.load_kube_config(str(cluster.kubeconfig))
    core = client.CoreV1Api()
    socket = stream(
        core.connect_get_namespaced_pod_exec,
        talker,
        "default",
        command=["sh", "-c", "read x; echo got $x; echo bad >&2; exit 3"],
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
        _preload_content=False,
    )
    socket.write_stdin("word\n")
    socket.run_forever(timeout=PATIENCE)
    assert socket.read_stdout() == "got word\n"
    assert socket.read_stderr() == "bad\n"
    assert socket.returncode == 3


def test_a_terminal_can_be_had(cluster: Cluster, talker: str) -> None:
    kube_config.load_kube_config(str(cluster.kubeconfig))
    answer = stream(
        client.CoreV1Api().connect_get_namespaced_pod_exec,
        talker,
        "default",
        command=["sh", "-c", "test -t 1 && echo terminal"],
        stdin=False,
        stdout=True,
        stderr=True,
        tty=True,
    )
    assert answer.strip() == "terminal"


def test_logs_of_a_container_that_did_not_start_are_refused_in_words(
    cluster: Cluster, namespace: str
) -> None:
    cluster.pod(namespace, "stuck", None, container={"image": "registry.example/none:2"})
    cluster.event(namespace, "stuck", "Failed")
    binary = Path(sys.executable).parent / "kubectl"
    command = [str(binary), "--kubeconfig", str(cluster.kubeconfig), "-n", namespace, "logs", "stuck"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert 'container "main" in pod "stuck" is waiting to start' in done.stderr


def test_a_client_that_goes_away_ends_its_command(cluster: Cluster, talker: str) -> None:
    flag = cluster.folder / "exec-pid"
    binary = Path(sys.executable).parent / "kubectl"
    command = [str(binary), "--kubeconfig", str(cluster.kubeconfig), "exec", talker, "--"]
    process = subprocess.Popen([*command, "sh", "-c", f"echo $$ > {flag}; sleep 300"])
    begun = processes([int(cluster.until("pid", lambda: flag.exists() and flag.read_text().strip()))])
    process.kill()
    process.wait()
    assert not left_of(begun)


def test_a_script_fed_to_a_bare_shell_finds_the_mounts(cluster: Cluster, namespace: str) -> None:
    mount = [{"name": "x", "mountPath": "/airflow/xcom"}]
    stay = "echo -n '{}' > /airflow/xcom/return.json; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    volumes = [{"name": "x", "emptyDir": {}}]
    cluster.pod(namespace, "xcom", ["sh", "-c", stay], container={"volumeMounts": mount}, volumes=volumes)
    cluster.phase(namespace, "xcom", "Running")
    script = "if [ -s /airflow/xcom/return.json ]; then cat /airflow/xcom/return.json; fi\n"
    found = cluster.kubectl("-n", namespace, "exec", "-i", "xcom", "--", "/bin/sh", stdin=script)
    assert found == "{}"
