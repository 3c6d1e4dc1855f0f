"""All checks together: against a whole cluster, with Airflow's few rights, and from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.local.doctor.conftest import Ward, write_catalogue
from tests.local.doctor.test_ailments import account_of
from tests.support.hub import LocalHub
from tests.support.manifests import ROOT
from tests.support.models import entry
from tests.support.seaweed import S3Server
from trainyard.doctor import outside
from trainyard.doctor.checkup import Seams, examine
from trainyard.hub import Hub
from trainyard.kube.cluster import Cluster
from trainyard.settings import Settings
from trainyard.spec import parse_spec
from trainyard.store.objects import Objects
from trainyard_cli.main import app


@pytest.fixture
def settings(tmp_path: Path, bucket: str, hub: LocalHub) -> Settings:
    write_catalogue(tmp_path, entry(name="tiny", model={"repo": "tests/tiny", "revision": "main"}))
    return Settings(releases_dir=tmp_path, bucket=bucket, hub_endpoint=hub.endpoint)


@pytest.fixture
def surroundings(settings: Settings, bucket: str, s3_server: S3Server, revisions: Any) -> dict[str, str]:
    """The environment of the command line."""
    return {
        **s3_server.environment,
        "TRAINYARD_BUCKET": bucket,
        "TRAINYARD_HUB_ENDPOINT": settings.hub_endpoint,
        "TRAINYARD_RELEASES_DIR": str(settings.releases_dir),
    }


def seams(ward: Ward, settings: Settings, s3: S3Server, cluster: Cluster) -> Seams:
    return Seams(
        settings,
        cluster=lambda: cluster,
        account=lambda: account_of(ward),
        who="airflow",
        objects=lambda: Objects(s3.client(), settings.bucket),
        hub=lambda: Hub(settings.hub_endpoint),
    )


@pytest.mark.usefixtures("revisions")
def test_a_cluster_a_bucket_and_a_hub_that_lack_nothing_are_ready(
    ward: Ward, settings: Settings, s3_server: S3Server
) -> None:
    found = list(examine(seams(ward, settings, s3_server, ward.cluster)))

    assert {each.state for each in found} == {"ok"}, [each for each in found if each.state != "ok"]
    assert {each.part for each in found} == {
        "api", "kinds", "namespaces", "accounts", "priorities", "capacity", "devices", "gateway",
        "rights", "secrets", "bucket", "hub",
    }  # fmt: skip
    assert list(Objects(s3_server.client(), settings.bucket).list("doctor/")) == []


@pytest.mark.usefixtures("revisions")
def test_with_airflows_own_rights_what_cannot_be_seen_is_unknown_and_not_broken(
    ward: Ward, settings: Settings, s3_server: S3Server
) -> None:
    found = list(examine(seams(ward, settings, s3_server, account_of(ward))))

    states: dict[str, set[str]] = {}
    for each in found:
        states.setdefault(each.part, set()).add(each.state)
    assert {part for part, kinds in states.items() if kinds == {"unknown"}} == {
        "namespaces", "accounts", "priorities", "gateway",
    }  # fmt: skip
    assert {"ok", "unknown"} == set().union(*states.values())
    assert all("--kubeconfig" in each.mend for each in found if each.state == "unknown")


def test_an_entry_that_cannot_be_read_does_not_hide_the_others(
    ward: Ward, settings: Settings, s3_server: S3Server
) -> None:
    (settings.releases_dir / "odd.yaml").write_text("name: odd\nmodel: 3\n")

    found = list(examine(seams(ward, settings, s3_server, ward.cluster)))

    assert [each.about for each in found if each.part == "catalogue"] == ["odd"]
    assert any(each.about == "NodePool neuron-trn2" for each in found)


def test_an_api_server_that_is_away_leaves_bucket_and_hub_to_be_looked_at(
    ward: Ward, settings: Settings, s3_server: S3Server
) -> None:
    from kubernetes import client

    away = Cluster(client.ApiClient(client.Configuration(host="http://127.0.0.1:1")), attempts=1)

    found = list(examine(seams(ward, settings, s3_server, away)))

    assert (found[0].part, found[0].state) == ("api", "failed")
    assert {each.part for each in found} == {"api", "bucket", "hub"}


class Careless(Objects):
    """A store that takes every write, as many S3 lookalikes do."""

    def put_new(self, key: str, body: bytes) -> str:
        return self.put(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        return self.put(key, body)


def test_a_store_without_conditional_writes_is_refused(s3_server: S3Server, bucket: str) -> None:
    (found,) = outside.bucket(Careless(s3_server.client(), bucket))

    assert found.state == "failed"
    assert "If-None-Match" in found.says
    assert "If-Match" in found.says
    assert list(Objects(s3_server.client(), bucket).list("doctor/")) == []


def test_a_bucket_that_does_not_exist_is_named(s3_server: S3Server) -> None:
    (found,) = outside.bucket(Objects(s3_server.client(), "no-such-bucket"))

    assert (found.state, found.about) == ("failed", "s3://no-such-bucket")


def test_a_hub_that_knows_none_of_the_models_still_answers(hub: LocalHub) -> None:
    wanted = parse_spec(entry(model={"repo": "tests/nothing", "revision": "main"}), "a test")

    (found,) = outside.hub(Hub(hub.endpoint), [wanted])

    assert (found.state, found.about) == ("warning", hub.endpoint)


def test_the_command_says_what_is_wrong_and_exits_by_it(
    ward: Ward, surroundings: dict[str, str], tmp_path: Path
) -> None:
    words = ["doctor", "--home", str(tmp_path / "none"), "--kubeconfig", str(ward.server.kubeconfig)]
    runner = CliRunner()

    fine = runner.invoke(app, [*words, "--json"], env=surroundings)
    assert fine.exit_code == 0, fine.output
    document = json.loads(fine.stdout)
    assert document["healthy"] is True
    assert all(each["state"] == "ok" for each in document["findings"])

    with ward.without("/apis/scheduling.k8s.io/v1/priorityclasses/trainyard-jobs"):
        bad = runner.invoke(app, [*words, "--context", "tests", "--as", ""], env=surroundings)
    assert bad.exit_code == 1
    assert "trainyard-jobs: it does not exist" in bad.output
    assert "to do: kubectl apply --server-side -k deploy/cluster/overlays/eks" in bad.output
    assert "not ready:" in bad.output
    assert "1 failed" in bad.output


def test_the_command_reaches_the_cluster_through_airflows_connections(
    ward: Ward, surroundings: dict[str, str], s3_server: S3Server, tmp_path: Path
) -> None:
    cluster = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(ward.server.kubeconfig)}}
    store = s3_server.environment
    aws = {
        "conn_type": "aws",
        "login": store["AWS_ACCESS_KEY_ID"],
        "password": store["AWS_SECRET_ACCESS_KEY"],
        "extra": {"region_name": "us-east-1", "endpoint_url": s3_server.endpoint},
    }
    done = subprocess.run(
        [sys.executable, "-m", "trainyard_cli.main", "doctor", "--json", "--home", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(str(ROOT / each) for each in (".", "include", "plugins")),
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(cluster),
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
            **{name: value for name, value in surroundings.items() if name.startswith("TRAINYARD_")},
        },
    )

    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {each["state"] for each in document["findings"]} == {"ok"}, done.stdout
    assert any("connection kubernetes_default" in each["about"] for each in document["findings"])
