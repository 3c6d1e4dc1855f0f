"""The same tiny model through every engine: compiled, published, proven to be used, promoted."""

from __future__ import annotations

import statistics

import pytest

from tests.e2e.asked import ENGINES
from tests.e2e.yard import Yard
from trainyard.stages.measured import gather
from trainyard_cli import demo, records

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("model", sorted(ENGINES))
def test_a_release_passes_through_the_engine(yard: Yard, started: dict[str, str], model: str) -> None:
    release = yard.follow(started[model])
    assert release.state == "promoted", release.failure
    assert release.stages["compile"].state == "done"
    assert "nothing was compiled again" in release.stages["canary_ready"].note
    assert release.plan.has_weights is (release.spec.engine == "tgi")
    assert demo.weights(model) == {release.id: 100}
    nodes = [yard.cluster.get("Node", pod["spec"]["nodeName"], None) for pod in yard.pods(model, "server")]
    types = {node["metadata"]["labels"]["node.kubernetes.io/instance-type"] for node in nodes}
    assert types == {release.spec.hardware.instance_type}


def test_a_model_with_eyes_is_shown_pictures_in_its_load_test(yard: Yard, started: dict[str, str]) -> None:
    prompts = {}
    for model in ("on-native", "on-native-with-eyes"):
        samples = gather(records.objects(), yard.follow(started[model]), "load").samples
        prompts[model] = statistics.median(
            sample.prompt_tokens or 0 for sample in samples if not sample.error
        )
    assert prompts["on-native-with-eyes"] - prompts["on-native"] >= 64  # what its processor makes of one


def test_new_weights_for_the_compiled_graph_are_asked_for(new_weights: str) -> None:
    """Followed in test_graphs.py: it goes on while the faults are looked at."""
    assert new_weights
