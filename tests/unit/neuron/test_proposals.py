"""What is proposed where the spec leaves something open, and why the rest fell out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest

from tests.support.published import facts_of
from tests.unit.neuron.plain import ASK, FACTS, GB, facts, plain
from trainyard.neuron.engines import engines
from trainyard.neuron.instances import INSTANCES
from trainyard.neuron.prices import TABLE, Price, Prices
from trainyard.neuron.proposals import OF_ENGINE, Proposal, propose

OPEN = replace(ASK, compile_memory_bytes=None, serve_memory_bytes=None, has_token=True)
PLAIN = {"plain": plain()}


def test_the_cheapest_that_keeps_every_rule_is_proposed() -> None:
    best = propose(FACTS, OPEN, PLAIN).best
    assert best is not None
    # An inf2.xlarge has the device memory, but 16 GiB of host memory for 32 GB of sharding.
    assert (best.engine, best.instance, best.tensor_parallel) == ("plain", "inf2.8xlarge", 2)
    assert best.dollars == TABLE.rows["inf2.8xlarge"].dollars


def test_no_choice_is_cheaper_than_the_one_before_it() -> None:
    choices = propose(FACTS, OPEN, engines()).choices
    assert len(choices) > 20
    for better, worse in pairwise(choices):
        assert (better.dollars or inf) <= (worse.dollars or inf)
        if better.dollars == worse.dollars:
            assert (better.result.chips, better.tensor_parallel) <= (
                worse.result.chips,
                worse.tensor_parallel,
            ) or better.result.chips < worse.result.chips


def test_of_equally_cheap_ones_the_fewer_chips_then_cores_then_the_engines_order() -> None:
    one_price = Prices("", "", {name: Price(1.0) for name in INSTANCES})
    both = {"second": plain(name="second"), "optimum": plain(name="optimum")}
    choices = propose(FACTS, OPEN, both, one_price, instance="trn2.3xlarge").choices
    assert [(choice.engine, choice.tensor_parallel) for choice in choices] == [
        ("optimum", 1),
        ("second", 1),
        ("optimum", 2),
        ("second", 2),
        ("optimum", 4),
        ("second", 4),
    ]
    everywhere = propose(FACTS, OPEN, both, one_price).choices
    assert (everywhere[0].instance, everywhere[0].result.chips) == ("trn2.3xlarge", 1)


def test_every_combination_is_either_kept_or_fell_out_for_a_reason() -> None:
    proposal = propose(FACTS, OPEN, PLAIN)
    tried = {
        (kind.name, tp)
        for kind in INSTANCES.values()
        for tp in plain().tensor_parallels(kind.cores(kind.default_lnc))
    }
    kept = {(choice.instance, choice.tensor_parallel) for choice in proposal.choices}
    fell = {
        (name, tp)
        for refusal in proposal.refusals
        for name in refusal.instances
        for tp in refusal.tensor_parallels
    }
    assert kept | fell == tried
    assert not kept & fell
    assert all(refusal.words for refusal in proposal.refusals)


def test_what_is_given_is_not_proposed_anew() -> None:
    proposal = propose(FACTS, OPEN, engines(), engine="nxdi", instance="trn2.48xlarge", tensor_parallel=32)
    assert [(choice.engine, choice.instance, choice.tensor_parallel) for choice in proposal.choices] == [
        ("nxdi", "trn2.48xlarge", 32)
    ]


def test_replicas_are_paid_by_whole_nodes() -> None:
    best = propose(FACTS, OPEN, PLAIN, instance="trn2.48xlarge", tensor_parallel=8, replicas=9).best
    assert best is not None
    assert best.nodes == 2
    assert best.dollars == 2 * 35.7608


def test_an_instance_without_a_price_comes_last() -> None:
    prices = Prices("", "", {"trn2.48xlarge": Price(35.0)})
    choices = propose(FACTS, OPEN, PLAIN, prices).choices
    assert choices[0].instance == "trn2.48xlarge"
    assert choices[-1].dollars is None


def lines(proposal: Proposal) -> list[tuple[str, ...]]:
    return [(*refusal.engines, refusal.rule) for refusal in proposal.refusals]


def test_what_an_engine_can_never_do_is_one_line() -> None:
    proposal = propose(facts(model_type="mamba"), OPEN, engines())
    assert proposal.best is None
    assert sorted(lines(proposal)) == [(name, "architecture") for name in sorted(engines())]


def test_families_are_one_line_an_engine() -> None:
    proposal = propose(FACTS, OPEN, {"plain": plain(families=frozenset({"trn2"}))})
    family = [refusal for refusal in proposal.refusals if refusal.rule == "family"]
    assert [refusal.words for refusal in family] == ["engine plain does not run on inf2, trn1, trn1n, trn2u"]


def test_like_reasons_of_engines_and_instances_are_told_together() -> None:
    proposal = propose(FACTS, OPEN, {"a": plain(name="a"), "b": plain(name="b")})
    first = proposal.refusals[0]
    assert first.engines == ("a", "b")
    assert len(first.instances) > 1
    assert (first.rule, first.tensor_parallels) == ("fit", (1,))
    assert "TP 1 needs 16.0 GB of weights" in first.words


@pytest.mark.parametrize("repo", ["meta-llama/Llama-4-Scout-17B-16E-Instruct", "databricks/dbrx-instruct"])
def test_a_person_can_read_why_all_others_fell_out(repo: str) -> None:
    proposal = propose(facts_of(repo), OPEN, engines())
    assert proposal.best is not None
    assert len(proposal.refusals) <= 25
    assert {rule for *_, rule in lines(proposal)} - set(OF_ENGINE) <= {
        "fit",
        "compile_memory",
        "heads",
        "serving_memory",
    }


def test_a_model_that_nothing_holds_gets_no_proposal() -> None:
    assert propose(facts(weight_bytes=5000 * GB), OPEN, engines()).best is None
