"""Run by the tests in a process of its own: parses the DAGs as Airflow does, prints what they are as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

HEAVY = (
    *("boto3", "botocore", "google", "huggingface_hub", "kubernetes", "kubernetes_asyncio", "locust"),
    *("matplotlib", "numpy", "pandas", "requests", "safetensors"),
)
FORMS: list[tuple[dict[str, Any], bool]] = [
    ({"release": "tiny-llama"}, True),
    ({"release": "tiny-llama", "revision": None, "overrides": None, "request": None}, True),
    ({"release": "tiny-llama", "overrides": {"serving": {"replicas": 2}}, "request": "a-1"}, True),
    ({"release": "no-such-entry"}, False),
    ({"release": "../tiny-llama"}, False),
    ({"release": "tiny-llama", "revision": "../../x"}, False),
    ({"release": "tiny-llama", "overrides": {"hardware": {"tensor_paralel": 4}}}, False),
    ({"release": "tiny-llama", "overrides": {"hardware": {"tensor_parallel": "4"}}}, False),
    ({"release": "tiny-llama", "overrides": {"name": "x"}}, False),
    ({"release": "tiny-llama", "request": "a b"}, False),
]


def taken(dag: Any, conf: dict[str, Any]) -> bool:
    """As the API server validates the body of a run: Params of the serialised DAG, `conf` laid over them."""
    try:
        dag.params.deep_merge(conf).validate()
    except Exception as error:
        if "ParamValidation" not in type(error).__name__ and "Invalid input" not in str(error):
            raise
        return False
    return True


def task(found: Any) -> dict[str, Any]:
    return {
        "rule": str(found.trigger_rule),
        "setup": found.is_setup,
        "teardown": found.is_teardown,
        "upstream": sorted(found.upstream_task_ids),
        "retries": found.retries,
        "stage": getattr(found, "stage", None),
        "pod": type(found).__name__,
        "failure_counts": found.on_failure_fail_dagrun,
    }


def main() -> None:
    from airflow.dag_processing.dagbag import DagBag

    before = set(sys.modules)
    bag = DagBag(dag_folder="dags")
    heavy = sorted(name for name in HEAVY if name in sys.modules and name not in before)
    from airflow.serialization.serialized_objects import DagSerialization

    release = bag.dags["model_release"]
    for each in {getattr(found, "stage", None) for found in release.tasks} - {None}:
        importlib.import_module(f"trainyard.stages.{each}")
    serialized = {name: DagSerialization.to_dict(dag) for name, dag in bag.dags.items()}
    stored = DagSerialization.from_dict(serialized["model_release"])
    document = {
        "errors": {str(Path(path).name): text for path, text in bag.import_errors.items()},
        "heavy": heavy,
        "dags": {
            name: {
                "tasks": {found.task_id: task(found) for found in dag.tasks},
                "catchup": dag.catchup,
                "serialized": serialized[name],
            }
            for name, dag in bag.dags.items()
        },
        "forms": [taken(stored, conf) for conf, _ in FORMS],
        "params": {name: release.params.get_param(name).dump() for name in release.params},
        "plugins_seen": sorted(name for name in sys.modules if name in ("operators", "seams", "triggers")),
    }
    print(json.dumps(document, default=str, sort_keys=True))


if __name__ == "__main__":
    main()
