"""What a fingerprint is made of, and what leaves it alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import LLAMA, PaperHub, entry
from tests.support.plans import compiling, hardware, planned, problems
from trainyard.neuron.engines import engine
from trainyard.spec import parse_spec
from trainyard.stages import plan as stage

COSMETIC = [{"_name_or_path": "/home/x"}, {"transformers_version": "5.0"}, {"use_cache": False}]


@pytest.mark.parametrize("config", COSMETIC)
def test_what_is_cosmetic_in_a_config_leaves_the_fingerprint(tmp_path: Path, config: dict[str, Any]) -> None:
    assert planned(tmp_path, PaperHub({**LLAMA, **config})).fingerprint == planned(tmp_path).fingerprint


@pytest.mark.parametrize("config", COSMETIC)
def test_what_is_cosmetic_is_so_in_the_text_part_too(tmp_path: Path, config: dict[str, Any]) -> None:
    def of(inner: dict[str, Any]) -> str:
        return planned(tmp_path, PaperHub({"model_type": "llama4", "text_config": inner})).fingerprint

    inner = {**LLAMA, "model_type": "llama4_text"}
    assert of({**inner, **config}) == of(inner)


def test_objectives_steps_replicas_and_names_leave_the_fingerprint(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        rollout={"objectives": {"ttft_p95_seconds": 9}, "steps": []},
        serving={"name": "other", "replicas": 3},
        description="new",
        compile=compiling(memory="128Gi", deadline_minutes=3),
        model={"repo": "meta/llama", "revision": "v2"},
    )
    assert found.fingerprint == planned(tmp_path).fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware": hardware(16)},
        {"compile": compiling(batch_size=4)},
        {"compile": compiling(sequence_length=2048)},
        {"hardware": hardware(8, "trn1.32xlarge")},
    ],
)
def test_shapes_tp_and_target_change_the_fingerprint(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert planned(tmp_path, **changes).fingerprint != planned(tmp_path).fingerprint


def test_the_size_of_the_instance_leaves_the_fingerprint_but_its_family_does_not(tmp_path: Path) -> None:
    small = planned(tmp_path, hardware=hardware(4, "trn2.3xlarge")).fingerprint
    assert small == planned(tmp_path, hardware=hardware(4)).fingerprint


@pytest.mark.parametrize("config", [{"rope_theta": 1e6}, {"torch_dtype": "float32"}, {"vocab_size": 9}])
def test_what_shapes_the_graph_changes_the_fingerprint(tmp_path: Path, config: dict[str, Any]) -> None:
    assert planned(tmp_path, PaperHub({**LLAMA, **config})).fingerprint != planned(tmp_path).fingerprint


@pytest.mark.parametrize("tool", ["engine", "compiler", "sdk"])
def test_a_new_compiler_engine_or_sdk_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    before = planned(tmp_path).fingerprint
    chosen = engine("optimum")
    monkeypatch.setattr(type(chosen), "versions", replace(chosen.versions, **{tool: "99"}))
    assert planned(tmp_path).fingerprint != before


def bundle(holds: str) -> dict[str, Any]:
    return {"engine": "nxdi", "compile": {"batch_size": 8, "bundle": {"holds": holds}}}


def test_new_weights_change_the_fingerprint_only_where_the_bundle_holds_them(tmp_path: Path) -> None:
    one, two = PaperHub(seed="one"), PaperHub(seed="two")
    asked = bundle("weights")
    assert planned(tmp_path, one, **asked).fingerprint != planned(tmp_path, two, **asked).fingerprint
    assert planned(tmp_path, one, **asked).has_weights
    asked = bundle("graph")
    assert planned(tmp_path, one, **asked).fingerprint == planned(tmp_path, two, **asked).fingerprint
    assert "weights" not in planned(tmp_path, one, **asked).fingerprint_inputs
    assert not planned(tmp_path, one, **asked).has_weights


def test_a_graph_and_a_set_with_weights_are_two_bundles(tmp_path: Path) -> None:
    plans = [planned(tmp_path, **bundle(holds)) for holds in ("graph", "weights")]
    assert plans[0].fingerprint != plans[1].fingerprint


@pytest.mark.parametrize(("name", "has_weights"), [("optimum", True), ("nxdi", True), ("native", False)])
def test_who_says_nothing_gets_what_the_engine_makes(tmp_path: Path, name: str, has_weights: bool) -> None:
    assert planned(tmp_path, engine=name).has_weights is has_weights


def test_what_an_engine_cannot_leave_out_is_refused(tmp_path: Path) -> None:
    asked = {**bundle("graph"), "engine": "optimum"}
    assert "compile.bundle.holds" in problems(tmp_path, **asked)


def test_the_reason_for_a_bundle_is_no_new_release(tmp_path: Path) -> None:
    specs = [
        parse_spec(entry(compile={"bundle": {"holds": "weights", "reason": reason}}), "here")
        for reason in ("", "scaled often")
    ]
    plan = planned(tmp_path)
    assert stage.release_id_of(specs[0], plan, "") == stage.release_id_of(specs[1], plan, "")


def test_the_order_of_a_config_leaves_the_fingerprint(tmp_path: Path) -> None:
    turned = dict(reversed(LLAMA.items()))
    assert planned(tmp_path, PaperHub(turned)).fingerprint == planned(tmp_path).fingerprint
