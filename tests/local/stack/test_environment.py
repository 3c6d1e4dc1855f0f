from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.stack import environment
from local.stack.home import MARKER, Home, Secrets
from local.stack.services.setting import PORTS, Setting

NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=40)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    home = Home(tmp_path / "home")
    home.create()
    ports = {name: 20_000 + number for number, name in enumerate(PORTS)}
    return Setting(home, Secrets.of(home), ports, home.kubeconfig, "https://127.0.0.1:20005")


@given(st.dictionaries(NAMES, VALUES))
def test_what_is_written_is_what_is_read(values: dict[str, str]) -> None:
    assert environment.parse(environment.render(values)) == values


def test_a_value_of_two_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="TWO has a line break"):
        environment.render({"TWO": "a\nb"})


def test_clients_learn_where_everything_is(setting: Setting) -> None:
    values = environment.for_clients(setting, {})

    assert values["TRAINYARD_GATEWAY_URL"] == setting.url("gateway")
    assert values["HF_ENDPOINT"] == setting.url("hub")
    assert values["AWS_ENDPOINT_URL_S3"] == setting.url("s3")
    aws = json.loads(values["AIRFLOW_CONN_AWS_DEFAULT"])
    assert aws["extra"]["service_config"]["s3"]["endpoint_url"] == setting.url("s3")
    kubernetes = json.loads(values["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    assert kubernetes["extra"]["kube_config_path"] == str(setting.home.airflow_kubeconfig)


def test_on_another_control_plane_airflow_uses_the_kubeconfig_it_was_given(setting: Setting) -> None:
    given = replace(setting, kubeconfig=Path("/given"), own_control_plane=False)
    values = environment.for_clients(given, {})

    kubernetes = json.loads(values["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    assert kubernetes["extra"]["kube_config_path"] == "/given"


def test_nobody_is_given_a_kubeconfig_variable(setting: Setting) -> None:
    """Airflow's triggerer refuses a connection that names one while the variable is set."""
    clients = environment.for_clients(setting, {"KUBECONFIG": "/mine"})

    assert "KUBECONFIG" not in environment.for_children(setting, clients, {"KUBECONFIG": "/mine"})


def test_the_callers_own_clouds_and_airflows_stay_out(setting: Setting) -> None:
    caller = {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AWS_PROFILE": "production",
        "AWS_ACCESS_KEY_ID": "real",
        "HTTPS_PROXY": "http://proxy:3128",
        "HOME": "/home/me",
    }
    children = environment.for_children(setting, environment.for_clients(setting, caller), caller)

    assert children["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert children["AWS_ACCESS_KEY_ID"] == setting.secrets.s3_access_key
    assert "AWS_PROFILE" not in children
    assert "HTTPS_PROXY" not in children
    assert children["HOME"] == "/home/me"
    assert children[MARKER] == setting.home.id


def test_the_callers_trainyard_settings_win_where_they_say_nothing_of_places(setting: Setting) -> None:
    caller = {"TRAINYARD_POLL_SECONDS": "9", "TRAINYARD_GATEWAY_URL": "http://elsewhere"}
    values = environment.for_clients(setting, caller)

    assert values["TRAINYARD_POLL_SECONDS"] == "9"
    assert values["TRAINYARD_GATEWAY_URL"] == setting.url("gateway")


def test_secrets_are_made_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    home = Home(tmp_path)

    assert Secrets.of(home) == Secrets.of(home)
    assert (tmp_path / "secrets.json").stat().st_mode & 0o077 == 0


def test_the_schedule_follows_what_the_local_hub_has_unless_the_caller_says_more(setting: Setting) -> None:
    assert environment.for_clients(setting, {})["TRAINYARD_FOLLOW"] == "tiny-llama"
    caller = {"TRAINYARD_FOLLOW": "*"}
    assert environment.for_clients(setting, caller)["TRAINYARD_FOLLOW"] == "*"
