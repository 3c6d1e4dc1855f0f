"""The same tiny model through every engine: compiled, published, proven to be used, promoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.asked import ENGINES
from tests.e2e.yard import Yard
from trainyard.release import Release
from trainyard_cli import demo

pytestmark = pytest.mark.e2e


@pytest.fixture
def runs(started: dict[str, str]) -> dict[str, str]:
    return started


def promoted(yard: Yard, run_id: str) -> Release:
    release = yard.follow(run_id, 300)
    assert release.state == "promoted", release.failure
    assert release.stages["compile"].state == "done"
    assert "nothing was compiled again" in release.stages["canary_ready"].note
    assert demo.weights(release.model) == {release.id: 100}
    return release


@pytest.mark.parametrize("model", sorted(ENGINES))
def test_a_release_passes_through_the_engine(yard: Yard, runs: dict[str, str], model: str) -> None:
    release = promoted(yard, runs[model])
    assert release.plan.has_weights is (release.spec.engine == "tgi")
    nodes = {pod["spec"]["nodeName"] for pod in yard.pods(model, "server")}
    types = {
        (yard.cluster.find("Node", node, None) or {})["metadata"]["labels"][
            "node.kubernetes.io/instance-type"
        ]
        for node in nodes
    }
    assert types == {release.spec.hardware.instance_type}


def test_new_weights_for_a_compiled_graph_need_no_compiler(
    yard: Yard, runs: dict[str, str], tmp_path: Path
) -> None:
    """A weights-only revision finds its bundle: no compile pod, no node for one; the new weights serve."""
    first = promoted(yard, runs["on-nxdi"])
    yard.publish(yard.stack, tmp_path, "engines-new")
    second = yard.follow(yard.ask("on-nxdi", model__revision="engines-new", **ENGINES["on-nxdi"]), 300)
    assert second.state == "promoted", second.failure
    assert second.plan.revision != first.plan.revision
    assert second.plan.fingerprint == first.plan.fingerprint
    assert {second.stages[stage].state for stage in ("compile", "compile_node", "publish")} == {"skipped"}
    assert second.stages["fetch_model"].state == "done"
    assert "nothing was compiled again" in second.stages["canary_ready"].note
