"""The DAGs as Airflow sees them: they parse, cheaply and always alike, and are wired as the pipeline is."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.unit.airflow.describe import FORMS
from trainyard import catalogue
from trainyard.spec import MAX_STEPS, Request
from trainyard_cli.progress import _ORDER

REPOSITORY = Path(__file__).parents[3]
Parsed = dict[str, Any]


@pytest.fixture(scope="module")
def parses(airflow_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[Parsed]:
    """What two processes with different hash seeds make of the same files.

    Each in a home of its own: the first that starts there writes a configuration, and the second would read
    what there is of it by then.
    """
    homes = {seed: str(tmp_path_factory.mktemp("airflow")) for seed in ("1", "2")}
    command = [sys.executable, "-m", "tests.unit.airflow.describe"]
    processes = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**airflow_environment, "PYTHONHASHSEED": seed, "AIRFLOW_HOME": home},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, home in homes.items()
    ]
    found = []
    for process in processes:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        found.append(json.loads(out.strip().splitlines()[-1]))
    return found


@pytest.fixture(scope="module")
def parsed(parses: list[Parsed]) -> Parsed:
    return parses[0]


@pytest.fixture(scope="module")
def tasks(parsed: Parsed) -> dict[str, Parsed]:
    found: dict[str, Parsed] = parsed["dags"]["model_release"]["tasks"]
    return found


def test_all_dags_parse_without_errors(parsed: Parsed) -> None:
    assert parsed["errors"] == {}
    assert {"model_release", "model_refresh"} <= set(parsed["dags"])


def test_parsing_imports_nothing_heavy(parsed: Parsed) -> None:
    assert parsed["heavy"] == []


def test_two_parses_are_the_same_version(parses: list[Parsed]) -> None:
    one, two = (each["dags"] for each in parses)
    assert one == two


def test_the_plugins_package_is_not_imported_under_bare_names(parsed: Parsed) -> None:
    assert parsed["plugins_seen"] == []
    ignored = (REPOSITORY / "plugins" / ".airflowignore").read_text().split()
    packages = [path.name for path in (REPOSITORY / "plugins").iterdir() if (path / "__init__.py").exists()]
    assert packages
    assert set(packages) <= set(ignored)


def test_a_stage_with_nothing_to_do_does_not_skip_what_comes_after_it(tasks: dict[str, Parsed]) -> None:
    for name, task in tasks.items():
        if task["setup"] or task["teardown"]:
            continue
        expected = "all_success" if task["upstream"] == ["plan"] else "none_failed"
        assert task["rule"].lower().endswith(expected), name


def test_roll_back_and_record_run_whatever_happened(tasks: dict[str, Parsed]) -> None:
    assert tasks["plan"]["setup"]
    for name in ("roll_back", "record"):
        assert tasks[name]["teardown"]
        assert tasks[name]["rule"].lower().endswith("all_done_setup_success")
        assert "plan" in tasks[name]["upstream"]
    assert "roll_back" in tasks["record"]["upstream"]


def test_the_pipeline_is_wired_in_the_order_of_the_stages(tasks: dict[str, Parsed]) -> None:
    before: dict[str, set[str]] = {}

    def all_before(name: str) -> set[str]:
        if name not in before:
            direct = tasks[name]["upstream"]
            before[name] = set(direct).union(*(all_before(each) for each in direct))
        return before[name]

    chain = [
        *("plan", "fetch_model", "check_capacity", "compile", "publish", "canary", "canary_ready"),
        *("device_health", "warm_up", "load_test", "judge"),
        *(f"step_{number}" for number in range(1, MAX_STEPS + 1)),
        *("promote", "drain_previous", "roll_back", "record"),
    ]
    for earlier, later in pairwise(chain):
        assert earlier in all_before(later), (earlier, later)
    assert "compile" not in all_before("compile_node")
    assert "canary_ready" not in all_before("canary_node")


def test_housekeeping_looks_before_it_deletes_and_manifests_go_before_blobs(parsed: Parsed) -> None:
    tasks = parsed["dags"]["housekeeping"]["tasks"]
    order = ["look", "manifests", "blobs", "uploads", "staging_logs_caches"]
    assert set(tasks) == set(order)
    for earlier, later in pairwise(order):
        assert tasks[later]["upstream"] == [earlier]
        # What a dry run skips is skipped to the end.
        assert tasks[later]["rule"].lower().endswith("all_success")
    assert not parsed["dags"]["housekeeping"]["catchup"]


def test_there_is_a_task_for_every_step_of_the_largest_entry(tasks: dict[str, Parsed]) -> None:
    folder = REPOSITORY / "include" / "releases"
    specs = [catalogue.resolve(folder, Request(release=name)) for name in catalogue.names(folder)]
    steps = [name for name in tasks if name.startswith("step_")]
    assert len(steps) == MAX_STEPS >= max(len(spec.rollout.steps) for spec in specs)


def test_the_terminal_shows_every_task(tasks: dict[str, Parsed]) -> None:
    assert set(tasks) == set(_ORDER)


def test_tasks_of_stages_are_retried(tasks: dict[str, Parsed]) -> None:
    assert all(task["retries"] >= 1 for task in tasks.values())


@pytest.mark.parametrize("number", range(len(FORMS)), ids=lambda number: json.dumps(FORMS[number][0]))
def test_airflow_takes_and_refuses_what_the_schema_says(parsed: Parsed, number: int) -> None:
    assert parsed["forms"][number] is FORMS[number][1]


def test_the_form_can_be_submitted_as_it_comes(parsed: Parsed) -> None:
    for name, param in parsed["params"].items():
        if name != "release":
            assert param["value"] is None
