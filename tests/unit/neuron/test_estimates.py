"""How long and how much: scaled from what was measured, and honest about the range."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.published import facts_of
from trainyard.neuron.asking import ask_of
from trainyard.neuron.engines import engine
from trainyard.neuron.estimates import Estimate, Span, estimate
from trainyard.neuron.instances import instance
from trainyard.neuron.prices import TABLE
from trainyard.neuron.rules import preflight
from trainyard.spec import merge, parse_spec

SCOUT = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def estimated(repo: str = SCOUT, name: str = "optimum", **changes: Any) -> Estimate:
    document = {
        "name": "model",
        "model": {"repo": repo, "token_secret": "hub"},
        "engine": name,
        "hardware": {"tensor_parallel": 16},
        "compile": {"memory": "512Gi"},
        "serving": {"memory": "384Gi"},
    }
    spec = parse_spec(merge(document, changes), "here")
    model, kind = facts_of(repo), instance(spec.hardware.instance_type)
    result = preflight(model, engine(name), kind, ask_of(spec))
    return estimate(model, spec, result, kind, TABLE.of(kind.name))


def stage(found: Estimate, name: str) -> Any:
    return next(item for item in found.stages if item.stage == name)


def test_scout_takes_what_was_measured_of_it() -> None:
    found = estimated()
    # 60 s + 200 s + 650 s, and the image.
    assert stage(found, "compile").minutes.likely == pytest.approx((60 + 200 + 650 + 30) / 60, rel=0.02)
    assert stage(found, "compile node").minutes.likely == 5
    # An hour is what the guide warns of.
    assert stage(found, "compile").minutes.high == pytest.approx(60, abs=5)


def test_a_server_that_shards_for_itself_takes_as_long_as_was_measured() -> None:
    found = estimated(LLAMA, "native", hardware={"tensor_parallel": 8})
    weights = estimated(LLAMA, "nxdi", hardware={"tensor_parallel": 8})
    assert stage(found, "server start").minutes.likely > stage(weights, "server start").minutes.likely
    assert stage(found, "compile").minutes.likely < stage(weights, "compile").minutes.likely


def test_a_small_model_is_quick_and_a_large_one_is_slow() -> None:
    assert estimated(LLAMA).minutes.likely < estimated(SCOUT).minutes.likely


def test_every_stage_has_an_order_of_guesses_and_a_reason() -> None:
    for item in estimated().stages:
        assert 0 <= item.minutes.low <= item.minutes.likely <= item.minutes.high
        assert item.why


def test_the_whole_is_the_sum_of_its_stages() -> None:
    found = estimated()
    assert found.minutes.likely == pytest.approx(sum(item.minutes.likely for item in found.stages))
    hours = sum(item.minutes.likely * item.paid for item in found.stages) / 60
    assert found.accelerator_hours.likely == pytest.approx(16 * hours)
    assert found.dollars is not None
    assert found.dollars.likely == pytest.approx(35.7608 * hours)
    assert found.serving_dollars == 35.7608
    assert found.assumptions


def test_the_rollout_takes_the_specs_steps_and_their_extensions() -> None:
    steps = [{"weight": 10, "observe_seconds": 600}, {"weight": 50, "observe_seconds": 1200}]
    found = stage(estimated(rollout={"steps": steps, "extensions": 1}), "rollout").minutes
    assert found.low == 30
    assert found.high == 61


def test_more_nodes_cost_more() -> None:
    one, four = estimated(), estimated(serving={"replicas": 16})
    assert (one.nodes, four.nodes) == (1, 4)
    assert one.dollars is not None
    assert four.dollars is not None
    assert four.dollars.likely > 2 * one.dollars.likely
    assert four.serving_dollars == 4 * 35.7608


def test_the_fetch_pays_for_no_accelerator() -> None:
    assert stage(estimated(), "fetch").paid == 0


def test_without_a_price_there_is_no_cost_but_hours() -> None:
    spec = parse_spec({"name": "m", "model": {"repo": SCOUT}, "hardware": {"tensor_parallel": 16}}, "here")
    kind = instance("trn2.48xlarge")
    result = preflight(facts_of(SCOUT), engine("optimum"), kind, ask_of(spec))
    found = estimate(facts_of(SCOUT), spec, result, kind, None)
    assert found.dollars is None
    assert found.accelerator_hours.likely > 0


def test_spans_add_and_scale() -> None:
    assert Span(1, 2, 3) + Span(1, 1, 1) * 2 == Span(3, 4, 5)
