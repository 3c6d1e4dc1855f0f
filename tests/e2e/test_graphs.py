"""A bundle of the graph only: a revision that changes weights needs no compiler."""

from __future__ import annotations

import pytest

from tests.e2e.yard import Yard
from trainyard.stages.measured import gather
from trainyard_cli import records

pytestmark = pytest.mark.e2e


def test_new_weights_for_a_compiled_graph_need_no_compiler(
    yard: Yard, started: dict[str, str], new_weights: str
) -> None:
    """It finds its bundle: no compile pod, no node for one; the new weights serve."""
    first, second = yard.follow(started["on-nxdi"]), yard.follow(new_weights)
    assert second.state == "promoted", second.failure
    assert second.previous == first.id
    assert second.plan.revision != first.plan.revision
    assert second.plan.fingerprint == first.plan.fingerprint
    assert {second.stages[stage].state for stage in ("compile", "compile_node", "publish")} == {"skipped"}
    assert second.stages["fetch_model"].state == "done"
    assert "nothing was compiled again" in second.stages["canary_ready"].note


def test_the_two_pods_of_its_load_tests_measured_as_one(
    yard: Yard, started: dict[str, str], new_weights: str
) -> None:
    release = yard.follow(new_weights)
    for phase in ("load", "step-1"):
        measured = gather(records.objects(), release, phase)
        assert measured.summary["workers"] == 2
        assert measured.summary["generator"]["valid"]
        # Each pod takes every second conversation, and asks both arms.
        asked = {(sample.arm, sample.pair % 2) for sample in measured.samples if sample.pair is not None}
        assert asked == {(arm, pod) for arm in ("canary", "baseline") for pod in (0, 1)}
    yard.wait_for("the end of both", lambda: not yard.pods("on-nxdi", "loadtest"))
