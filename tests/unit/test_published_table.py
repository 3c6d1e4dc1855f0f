"""The published table of models and instances (the guides' "supported model matrix"), asked again: each row
gets an answer from the rules, and docs/catalogue.md has that answer."""

from __future__ import annotations

import pytest

from tests.support.published import REPOSITORY, facts_of
from trainyard.neuron.engines import engines
from trainyard.neuron.instances import instance
from trainyard.neuron.rule import Ask
from trainyard.neuron.rules import preflight

# Model and instances as the table recommends them.
ROWS = [
    (repo, kind)
    for repo, kinds in (
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", ("inf2.48xlarge", "trn2.48xlarge")),
        (
            "meta-llama/Llama-4-Maverick-17B-128E-Instruct",
            ("inf2.48xlarge", "trn2.48xlarge", "trn2u.48xlarge"),
        ),
        ("mistralai/Mistral-7B-Instruct-v0.3", ("inf2.48xlarge",)),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", ("inf2.48xlarge",)),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", ("trn2.48xlarge",)),
        ("Qwen/Qwen3-4B", ("inf2.8xlarge", "trn2.3xlarge")),
        ("Qwen/Qwen3-32B", ("inf2.48xlarge", "trn2.48xlarge")),
        ("databricks/dbrx-instruct", ("trn2.48xlarge",)),
        ("deepseek-ai/DeepSeek-V3", ("trn2u.48xlarge",)),
    )
    for kind in kinds
]
DOCUMENT = REPOSITORY / "docs" / "catalogue.md"


def degrees(repo: str, kind_name: str) -> dict[str, list[int]]:
    """TP degrees that pass every rule at batch 4 and 4096 tokens, by engine, given all the host memory."""
    facts, kind = facts_of(repo), instance(kind_name)
    found: dict[str, list[int]] = {}
    for engine in engines().values():
        for tp in engine.tensor_parallels(kind.cores(kind.default_lnc)):
            if not preflight(facts, engine, kind, Ask(tp, 4, 4096, has_token=True)).problems:
                found.setdefault(engine.name, []).append(tp)
    return found


def row(repo: str, kind: str) -> str:
    found = degrees(repo, kind)
    verdict = "; ".join(f"`{name}` TP {', '.join(map(str, tps))}" for name, tps in sorted(found.items()))
    return f"| {repo.partition('/')[2]} | {kind} | {verdict or 'nothing'} |"


@pytest.mark.parametrize(("repo", "kind"), ROWS)
def test_each_row_of_the_published_table_has_an_answer_that_the_document_gives(repo: str, kind: str) -> None:
    assert row(repo, kind) in DOCUMENT.read_text().splitlines()


def test_maverick_takes_the_whole_of_a_trainium2_node_and_no_inferentia2() -> None:
    maverick = "meta-llama/Llama-4-Maverick-17B-128E-Instruct"
    assert degrees(maverick, "inf2.48xlarge") == {}
    assert degrees(maverick, "trn2.48xlarge") == {"optimum": [64]}


def test_deepseek_v3_runs_on_no_single_instance() -> None:
    assert all(degrees("deepseek-ai/DeepSeek-V3", kind) == {} for kind in ("trn2.48xlarge", "trn2u.48xlarge"))
