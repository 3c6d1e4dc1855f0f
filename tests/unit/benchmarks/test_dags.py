"""The DAGs that are compared. Read in a process of their own: importing Airflow leaves traces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
FILES = {
    "real": "dags/model_release.py",
    "stubbed": "benchmarks/dags/stubbed.py",
    "empty": "benchmarks/dags/empty_shape.py",
}
READ = """
import json, runpy, sys
found = {}
for path in sys.argv[1:]:
    dag = runpy.run_path(path)["dag"]
    found[path] = {"dag_id": dag.dag_id, "tasks": {
        task.task_id: {
            "upstream": sorted(task.upstream_task_ids),
            "rule": str(task.trigger_rule),
            "setup": task.is_setup,
            "teardown": task.is_teardown,
            "stage": getattr(task, "stage", None),
            "kind": type(task).__mro__[0].__name__,
        }
        for task in dag.tasks
    }}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    paths = {name: str(REPOSITORY / file) for name, file in FILES.items()}
    roots = (REPOSITORY, REPOSITORY / "include", REPOSITORY / "plugins")
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "PYTHONPATH": os.pathsep.join(map(str, roots)),
    }
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths.values()], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[path] for name, path in paths.items()}


def shape(dag: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in task.items() if key not in ("stage", "kind")}
        for name, task in dag["tasks"].items()
    }


def test_the_peer_has_the_shape_of_the_release_dag(dags: dict[str, dict[str, Any]]) -> None:
    assert shape(dags["empty"]) == shape(dags["real"])


def test_the_stubbed_dag_is_the_release_dag_with_other_stages(dags: dict[str, dict[str, Any]]) -> None:
    assert shape(dags["stubbed"]) == shape(dags["real"])
    for name, task in dags["real"]["tasks"].items():
        assert dags["stubbed"]["tasks"][name]["kind"] == task["kind"]
    assert {task["stage"] for task in dags["stubbed"]["tasks"].values()} == {"benchmarks.stubs"}


def test_the_scheduler_starts_a_process_for_every_task_of_the_peer(dags: dict[str, dict[str, Any]]) -> None:
    # It would end an EmptyOperator by itself.
    assert {task["kind"] for task in dags["empty"]["tasks"].values()} == {"NothingOperator"}


def test_the_dags_can_be_told_apart(dags: dict[str, dict[str, Any]]) -> None:
    assert {dag["dag_id"] for dag in dags.values()} == {"model_release", "bench_stubbed", "bench_empty"}


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "benchmarks" / "dags").glob("*.py")), ids=lambda path: path.stem
)
def test_airflow_takes_each_file_for_one_of_dags(path: Path) -> None:
    # Its safe mode passes over files without these two words.
    words = path.read_text().lower()
    assert "dag" in words
    assert "airflow" in words
