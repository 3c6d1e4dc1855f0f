"""Who may delete: a person who took the tick off `dry_run`, or a schedule that the settings allow it."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.utils.types import DagRunType

from dags.housekeeping import dag
from trainyard.store.sweep import KINDS
from trainyard_airflow.operators.housekeeping import SweepOperator, deletes


class Run:
    def __init__(self, run_type: object) -> None:
        self.run_type = run_type


@pytest.mark.parametrize(
    ("run_type", "params", "setting", "wanted"),
    [
        (DagRunType.MANUAL, {"dry_run": True}, True, False),
        (DagRunType.MANUAL, {"dry_run": False}, False, True),
        (DagRunType.MANUAL, {}, True, False),
        (DagRunType.SCHEDULED, {"dry_run": True}, True, True),
        (DagRunType.SCHEDULED, {"dry_run": True}, False, False),
        (DagRunType.SCHEDULED, {"dry_run": False}, False, False),
        ("scheduled", {"dry_run": True}, True, True),
    ],
)
def test_nothing_is_deleted_unless_somebody_said_so(
    run_type: object, params: dict[str, bool], setting: bool, wanted: bool
) -> None:
    context: Any = {"dag_run": Run(run_type), "params": params}
    assert deletes(context, setting) is wanted


def test_the_form_begins_with_a_dry_run_and_every_kind_has_its_turn() -> None:
    assert dag.params["dry_run"] is True
    sweeps = [task for task in dag.tasks if isinstance(task, SweepOperator)]
    assert sorted(kind for task in sweeps for kind in task.kinds) == sorted(KINDS)
    assert [task.task_id for task in sweeps if task.look] == ["look"]
