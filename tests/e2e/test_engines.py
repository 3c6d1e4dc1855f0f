"""The same tiny model through every engine: compiled, published, proven to be used, promoted."""

from __future__ import annotations

import pytest

from tests.e2e.asked import ENGINES
from tests.e2e.yard import Yard
from trainyard_cli import demo

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("model", sorted(ENGINES))
def test_a_release_passes_through_the_engine(yard: Yard, started: dict[str, str], model: str) -> None:
    release = yard.follow(started[model], 300)
    assert release.state == "promoted", release.failure
    assert release.stages["compile"].state == "done"
    assert "nothing was compiled again" in release.stages["canary_ready"].note
    assert release.plan.has_weights is (release.spec.engine == "tgi")
    assert demo.weights(model) == {release.id: 100}
    nodes = [yard.cluster.get("Node", pod["spec"]["nodeName"], None) for pod in yard.pods(model, "server")]
    types = {node["metadata"]["labels"]["node.kubernetes.io/instance-type"] for node in nodes}
    assert types == {release.spec.hardware.instance_type}


def test_new_weights_for_the_compiled_graph_are_asked_for(new_weights: str) -> None:
    """Followed in test_graphs.py: it goes on while the faults are looked at."""
    assert new_weights
