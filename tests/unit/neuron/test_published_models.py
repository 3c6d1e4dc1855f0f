"""The models of the published guides: which run where, and which are refused with which numbers."""

from __future__ import annotations

import pytest

from tests.support.published import facts_of
from trainyard.neuron.engines import engine, engines
from trainyard.neuron.instances import instance
from trainyard.neuron.proposals import propose
from trainyard.neuron.rule import Ask, Preflight, Rule
from trainyard.neuron.rules import preflight

GIB = 2**30
MAVERICK = "meta-llama/Llama-4-Maverick-17B-128E-Instruct"
SCOUT = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
DEEPSEEK = "deepseek-ai/DeepSeek-V3"


def judged(repo: str, kind: str, tp: int, name: str = "optimum", batch: int = 4) -> Preflight:
    return preflight(facts_of(repo), engine(name), instance(kind), Ask(tp, batch, 4096, has_token=True))


def broken(result: Preflight) -> dict[str, Rule]:
    return {rule.name: rule for rule in result.rules if not rule.passed}


def test_maverick_at_tp_16_is_refused_16_of_64_cores_are_384_gb_for_803() -> None:
    found = broken(judged(MAVERICK, "trn2.48xlarge", 16))
    assert set(found) == {"fit"}
    assert "TP 16: 384.0 GB for 803.2 GB of bfloat16 weights" in found["fit"].words
    assert found["fit"].problem is not None
    assert found["fit"].problem.remedy == "TP 64 fits on trn2.48xlarge."


def test_maverick_on_trn1_is_refused_512_gb_for_803() -> None:
    found = broken(judged(MAVERICK, "trn1.32xlarge", 32))
    assert "TP 32: 512.0 GB for 803.2 GB of bfloat16 weights" in found["fit"].words
    assert found["fit"].problem is not None
    assert "trn2.48xlarge does, at TP 64" in found["fit"].problem.remedy
    # Nor could the host shard it: twice 803 GB.
    assert "(1606.3 GB), and trn1.32xlarge has 470Gi of its 512Gi" in found["compile_memory"].words


def test_maverick_at_tp_64_runs_on_trn2() -> None:
    result = judged(MAVERICK, "trn2.48xlarge", 64, batch=8)
    assert result.passed
    assert result.chips == 16


@pytest.mark.parametrize("name", ["optimum", "nxdi", "native"])
def test_deepseek_on_one_trn2_is_refused_with_what_it_would_take(name: str) -> None:
    found = broken(judged(DEEPSEEK, "trn2.48xlarge", 64, name))
    assert set(found) >= {"architecture", "quantization", "fit"}
    # Its FP8 blocks cannot be loaded: 684.5 billion numbers (14 of them the draft layer's) in BF16.
    assert "dequantized to BF16 it is 1369.0 GB instead of 688.6 GB" in found["quantization"].words
    assert "TP 64: 1536.0 GB for 1369.0 GB of bfloat16 weights" in found["fit"].words
    assert "21.4 GB of weights + 1.2 GB of KV cache + 2.4 GB of overhead" in found["fit"].words


def test_no_combination_runs_deepseek() -> None:
    proposal = propose(facts_of(DEEPSEEK), Ask(1, 4, 4096, has_token=True), engines())
    assert proposal.best is None
    assert {refusal.rule for refusal in proposal.refusals} == {"architecture"}


# The guide's table: BF16 memory, and where it fits.
@pytest.mark.parametrize(
    ("repo", "kind", "fits"),
    [
        (SCOUT, "trn1.32xlarge", True),
        (SCOUT, "trn2.48xlarge", True),
        (MAVERICK, "trn1.32xlarge", False),
        (MAVERICK, "trn2.48xlarge", True),
    ],
)
def test_the_guides_table_of_memory_is_answered(repo: str, kind: str, fits: bool) -> None:
    gigabytes = {SCOUT: 220, MAVERICK: 800}[repo]
    model = facts_of(repo)
    assert model.weight_bytes == pytest.approx(gigabytes * 10**9, rel=0.02)
    whole = max(engine("optimum").tensor_parallels(instance(kind).cores(instance(kind).default_lnc)))
    result = judged(repo, kind, whole)
    assert result.passed is fits
    assert (result.memory.free >= 0) is fits


def test_scout_needs_the_384_gib_of_host_memory_that_the_guide_asks_for_and_more() -> None:
    asked = Ask(64, 4, 4096, 384 * GIB, 384 * GIB, has_token=True)
    result = preflight(facts_of(SCOUT), engine("optimum"), instance("trn2.48xlarge"), asked)
    rule = broken(result)["compile_memory"]
    assert rule.problem is not None
    assert "405Gi" in rule.problem.remedy
    assert result.host.serving < 384 * GIB


# The first guide's matrix: model, where it is recommended to run.
@pytest.mark.parametrize(
    ("repo", "kind"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "inf2.48xlarge"),
        ("meta-llama/Llama-3.1-8B-Instruct", "trn2.48xlarge"),
        ("meta-llama/Llama-3.3-70B-Instruct", "inf2.48xlarge"),
        ("meta-llama/Llama-3.3-70B-Instruct", "trn2.48xlarge"),
        (SCOUT, "trn2.48xlarge"),
        (MAVERICK, "trn2.48xlarge"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "inf2.48xlarge"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "inf2.48xlarge"),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", "trn2.48xlarge"),
        ("Qwen/Qwen3-4B", "inf2.8xlarge"),
        ("Qwen/Qwen3-14B", "inf2.24xlarge"),
        ("Qwen/Qwen3-32B", "trn2.48xlarge"),
        ("databricks/dbrx-instruct", "trn2.48xlarge"),
    ],
)
def test_a_recommended_instance_runs_the_model_with_some_engine(repo: str, kind: str) -> None:
    proposal = propose(facts_of(repo), Ask(1, 4, 4096, has_token=True), engines(), instance=kind)
    assert proposal.best is not None
    assert proposal.best.instance == kind


def test_deepseek_does_not_run_on_a_host_of_an_ultraserver_either() -> None:
    # The matrix recommends four of them; a server of these engines is one pod on one host.
    proposal = propose(facts_of(DEEPSEEK), Ask(1, 4, 4096), engines(), instance="trn2u.48xlarge")
    assert proposal.best is None
