"""The files of a target, and the entry point that reads them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.compose.__main__ import local_target, main
from local.compose.targets import LocalTarget, eks_environment, render_shell
from trainyard.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
GIVEN = {
    "LOCAL_API_SERVER": "https://cluster:6443",
    "LOCAL_GATEWAY": "http://cluster:8000",
    "LOCAL_HUB": "http://hub:8090",
    "LOCAL_S3": "http://seaweedfs:8333",
    "S3_ACCESS_KEY": "key",
    "S3_SECRET_KEY": "it's secret",
    "CLUSTER_TOKEN": "token",
}
EKS = {"TRAINYARD_BUCKET": "models", "TRAINYARD_JOBS_IMAGE": "registry/trainyard-jobs:1"}


def target() -> LocalTarget:
    return local_target(GIVEN)


def read_by_a_shell(text: str, names: list[str], folder: Path) -> list[str]:
    file = folder / "environment"
    file.write_text(text)
    script = f"set -eu; . {file}; printf '%s\\0' " + " ".join(f'"${name}"' for name in names)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.split("\0")[:-1]


@settings(max_examples=25)
@given(
    st.lists(
        st.text(st.characters(codec="ascii", exclude_characters="\0\r"), max_size=20), min_size=1, max_size=4
    )
)
def test_a_shell_reads_back_exactly_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    names = [f"NAME_{number}" for number in range(len(texts))]
    folder = tmp_path_factory.mktemp("target")
    assert read_by_a_shell(render_shell(dict(zip(names, texts, strict=True))), names, folder) == texts


def test_settings_of_both_targets_are_settings_that_trainyard_has() -> None:
    known = {f"TRAINYARD_{name.upper()}" for name in Settings.model_fields}
    for values in (target().environment(Path("/t")), eks_environment(Path("/t"), EKS)):
        assert {name for name in values if name.startswith("TRAINYARD_")} <= known


def test_the_local_target_points_everything_at_the_local_services() -> None:
    values = target().environment(Path("/t"))
    aws = json.loads(values["AIRFLOW_CONN_AWS_DEFAULT"])
    assert aws["extra"]["service_config"]["s3"]["endpoint_url"] == "http://seaweedfs:8333"
    assert aws["password"] == "it's secret"
    assert (
        json.loads(values["AIRFLOW_CONN_KUBERNETES_DEFAULT"])["extra"]["kube_config_path"] == "/t/kubeconfig"
    )
    assert values["TRAINYARD_HUB_ENDPOINT"] == "http://hub:8090"
    assert "KUBECONFIG" not in values


def test_eks_gets_no_key_and_no_local_address_and_its_dags_wait_for_a_person() -> None:
    values = eks_environment(Path("/t"), EKS)
    assert "login" not in json.loads(values["AIRFLOW_CONN_AWS_DEFAULT"])
    assert not {"AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL_S3", "TRAINYARD_HUB_ENDPOINT"} & set(values)
    assert values["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] == "True"


def test_eks_says_which_settings_are_missing() -> None:
    with pytest.raises(ValueError, match="TRAINYARD_BUCKET and TRAINYARD_JOBS_IMAGE"):
        eks_environment(Path("/t"), {})


def test_eks_without_a_kubeconfig_is_told_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in EKS.items():
        monkeypatch.setenv(name, value)
    assert main(["eks-target", "--target", str(tmp_path), "--kubeconfig", "/dev/null"]) == 1
    assert "TRAINYARD_KUBECONFIG" in capsys.readouterr().err
    assert not (tmp_path / "environment").exists()


def test_a_missing_secret_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in GIVEN:
        monkeypatch.setenv(name, "" if name == "S3_SECRET_KEY" else "x")
    assert main(["local-setup"]) == 1
    assert "S3_SECRET_KEY" in capsys.readouterr().err


def test_without_a_profile_airflow_refuses_to_start_and_says_what_to_choose(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(ROOT / "deploy/compose/entrypoint"), "version"],
        env={"TRAINYARD_TARGET_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "--profile local or --profile eks" in done.stderr
