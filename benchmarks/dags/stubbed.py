"""The Airflow DAG of `dags/model_release.py` itself, read from its file, with stages that return at once.

Its parse therefore costs what the parse of the real one costs, in the process of every task too.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from trainyard_airflow.operators.pod import JobPodOperator

_FILE = Path(__file__).resolve().parents[2] / "dags" / "model_release.py"
_spec = spec_from_file_location("model_release_stubbed", _FILE)
assert _spec is not None
assert _spec.loader is not None
_module = module_from_spec(_spec)
_spec.loader.exec_module(_module)


def _do_nothing(*_: object) -> None:
    return None


dag = _module.dag
dag.dag_id = "bench_stubbed"
dag.tags = {"benchmark"}
for _task in dag.tasks:
    _task.stage = "benchmarks.stubs"
    if isinstance(_task, JobPodOperator):
        # The provider's operator is made, as ever, and then not run.
        _task._follow = _do_nothing  # type: ignore[assignment,method-assign]
