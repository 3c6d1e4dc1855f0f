"""Every entry of the catalogue is planned with the published facts of its model; docs/catalogue.md says the
same. Those that cannot run are refused with the numbers that show it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.models import paper_context
from tests.support.published import CATALOGUE, REFUSED, REPOSITORY, paper_hub
from trainyard import catalogue
from trainyard.errors import Problem, Refused
from trainyard.neuron.engines import engines
from trainyard.neuron.instances import instance
from trainyard.release import Plan
from trainyard.spec import Request, Spec
from trainyard.stages.plan import make_plan

# Its model is made on the spot, and planned in the end-to-end tests.
EMBEDDED = "tiny-llama"
ENTRIES = [name for name in catalogue.names(CATALOGUE) if name != EMBEDDED]
DOCUMENT = REPOSITORY / "docs" / "catalogue.md"


def spec_of(name: str, folder: Any = CATALOGUE) -> Spec:
    return catalogue.resolve(folder, Request(release=name))


def planned(spec: Spec, folder: Any = CATALOGUE, **config: Any) -> Plan:
    """config: keys laid over the published config.json; None takes one away."""
    hub = paper_hub(spec.model.repo)
    changed = {**hub.config, **config}
    hub.config = {key: value for key, value in changed.items() if value is not None or key not in config}
    return make_plan(paper_context(folder, hub), spec)


def problems(name: str, **config: Any) -> dict[str, Problem]:
    with pytest.raises(Refused) as caught:
        planned(spec_of(name, REFUSED), REFUSED, **config)
    return {problem.field: problem for problem in caught.value.problems}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_passes_every_rule_with_its_published_config(name: str) -> None:
    spec = spec_of(name)
    plan = planned(spec)
    assert plan.memory["free"] > 0
    kind = instance(spec.hardware.instance_type)
    assert spec.hardware.nodepool == f"neuron-{kind.family}"
    assert plan.has_weights == (spec.compile.bundle.holds == "weights")


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_says_what_its_bundle_holds_and_why(name: str) -> None:
    bundle = spec_of(name).compile.bundle
    assert bundle.holds is not None
    assert len(bundle.reason) > 40


@pytest.mark.parametrize("name", ENTRIES)
def test_a_gated_model_has_a_token(name: str) -> None:
    spec = spec_of(name)
    assert (spec.model.token_secret is not None) == paper_hub(spec.model.repo).licence


@pytest.mark.parametrize("name", ENTRIES)
def test_no_load_test_asks_for_more_than_was_compiled(name: str) -> None:
    spec = spec_of(name)
    load = spec.rollout.load
    assert load.concurrency <= spec.compile.batch_size
    assert load.prompt_tokens + load.output_tokens <= spec.compile.sequence_length


def test_the_catalogue_covers_the_models_engines_and_chips_that_it_should() -> None:
    specs = [spec_of(name) for name in ENTRIES]
    assert len({spec.engine for spec in specs}) >= 3
    assert {spec.engine for spec in specs} < set(engines())
    assert {instance(spec.hardware.instance_type).family for spec in specs} == {"inf2", "trn1", "trn2"}
    assert {spec.compile.bundle.holds for spec in specs} == {"graph", "weights"}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_table_of_the_catalogue_is_what_the_code_plans(name: str) -> None:
    spec = spec_of(name)
    assert row(spec, planned(spec)) in DOCUMENT.read_text().splitlines()


def test_the_table_of_the_catalogue_has_no_other_rows() -> None:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| [`")]
    assert len(rows) == len(ENTRIES)


def row(spec: Spec, plan: Plan) -> str:
    memory = plan.memory
    cells = [
        f"[`{spec.name}`](../include/releases/{spec.name}.yaml)",
        spec.model.repo,
        spec.engine,
        spec.hardware.instance_type,
        str(spec.hardware.tensor_parallel),
        f"{plan.chips} of {instance(spec.hardware.instance_type).chips}",
        f"{plan.weight_bytes / 1e9:.1f}",
        *(f"{memory[part] / 1e9:.1f}" for part in ("weights", "kv_cache", "free", "hbm")),
        "weights" if plan.has_weights else "graph",
    ]
    return f"| {' | '.join(cells)} |"


def test_maverick_at_tp_16_is_refused_with_the_numbers_and_the_way_out() -> None:
    found = problems("llama-4-maverick-tp-16")
    assert list(found) == ["hardware.tensor_parallel"]
    problem = found["hardware.tensor_parallel"]
    # 803 GB over 16 cores of 24 GB: 384 GB are not half of it.
    for number in ("24.0 GB", "50.3 GB of weights", "384.0 GB", "803.2 GB"):
        assert number in problem.rule
    assert problem.remedy == "TP 64 fits on trn2.48xlarge."


def test_maverick_on_trainium1_is_refused_for_want_of_memory_everywhere() -> None:
    found = problems("llama-4-maverick-trn1")
    assert {"hardware.tensor_parallel", "compile.memory", "serving.memory"} == set(found)
    fit = found["hardware.tensor_parallel"]
    for number in ("16.0 GB", "25.3 GB of weights", "512.0 GB"):
        assert number in fit.rule
    assert "trn2.48xlarge does, at TP 64" in fit.remedy


def test_deepseek_v3_is_refused_for_the_code_that_it_wants_to_run() -> None:
    assert any("auto_map" in field for field in problems("deepseek-v3"))


def test_deepseek_v3_would_not_fit_if_its_code_were_ours() -> None:
    found = problems("deepseek-v3", auto_map=None)
    assert "has no such architecture" in found["model.config.model_type"].rule
    dequantized = found["model.config.quantization_config"].rule
    assert "1369.0 GB instead of 688.6 GB" in dequantized
    for number in ("24.0 GB", "21.4 GB of weights", "1.2 GB of KV cache", "1536.0 GB"):
        assert number in found["hardware.tensor_parallel"].rule


@pytest.mark.parametrize("engine", sorted(engines()))
def test_no_engine_runs_deepseek_v3_on_a_trn2_node(engine: str) -> None:
    spec = spec_of("deepseek-v3", REFUSED).model_copy(update={"engine": engine})
    with pytest.raises(Refused, match="no such architecture"):
        planned(spec, REFUSED, auto_map=None)
