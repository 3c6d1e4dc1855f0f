"""`trainyard plan` of a spec that leaves engine, instance or TP open."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.support.printed_plans import LLAMA, PLANS, QWEN, answered, printed, spec_file
from tests.support.published import MODELS, REFUSED


def test_a_proposal_is_a_spec_that_can_run_as_it_is_told(tmp_path: Path) -> None:
    code, found = answered(PLANS / "my-qwen.yaml", QWEN)
    assert code == 0
    assert found["open"] == ["engine", "hardware.instance_type", "hardware.tensor_parallel"]
    document = yaml.safe_load((PLANS / "my-qwen.yaml").read_text())
    whole = spec_file(tmp_path, **{**found["plan"]["changes"], "model": document["model"]})
    code, again = answered(whole, QWEN)
    assert (code, again["open"], again["proposal"]) == (0, [], None)
    for key in ("engine", "instance_type", "tensor_parallel", "nodepool", "memory_of_a_core"):
        assert again["plan"][key] == found["plan"][key]


def test_only_what_is_open_is_proposed(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, engine="nxdi", hardware={"instance_type": "trn2.48xlarge"})
    _, found = answered(spec, LLAMA)
    assert found["open"] == ["hardware.tensor_parallel"]
    assert {choice["engine"] for choice in found["proposal"]["choices"]} == {"nxdi"}
    assert {choice["instance_type"] for choice in found["proposal"]["choices"]} == {"trn2.48xlarge"}
    assert found["plan"]["changes"]["hardware"] == {"tensor_parallel": found["plan"]["tensor_parallel"]}


def test_memory_and_cpus_that_the_spec_names_are_kept_and_others_follow(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, compile={"memory": "400Gi"})
    _, found = answered(spec, LLAMA)
    changes = found["plan"]["changes"]
    assert "compile" not in changes
    assert changes["serving"]["memory"].endswith("Gi")
    assert int(changes["serving"]["memory"][:-2]) * 2**30 >= found["plan"]["host_memory"]["serving"]


def test_a_small_instance_is_proposed_with_the_cpus_that_it_has(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, hardware={"instance_type": "trn1.2xlarge"})
    code, found = answered(spec, MODELS / "Qwen--Qwen3-4B")
    assert code == 0
    assert found["plan"]["changes"]["compile"]["cpu"] == 7
    assert found["plan"]["changes"]["serving"]["cpu"] == 7


def test_where_nothing_fits_every_reason_is_told_and_nothing_is_planned(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, hardware={"instance_type": "inf2.xlarge"})
    code, found = answered(spec, LLAMA)
    assert (code, found["can_run"], found["plan"], found["estimate"]) == (1, False, None, None)
    assert found["proposal"]["choices"] == []
    assert {item["rule"] for item in found["proposal"]["refusals"]} == {"fit", "family"}
    code, text = printed(spec, LLAMA)
    assert code == 1
    assert text.endswith("REFUSED: no combination keeps every rule.\n")


def test_a_model_with_its_own_code_gets_no_proposal() -> None:
    code, found = answered(REFUSED / "deepseek-v3.yaml", MODELS / "deepseek-ai--DeepSeek-V3")
    assert code == 1
    assert "auto_map" in found["problems"][0]["field"]


def test_an_open_spec_of_a_model_with_its_own_code_is_refused_at_once(tmp_path: Path) -> None:
    code, text = printed(spec_file(tmp_path), MODELS / "deepseek-ai--DeepSeek-V3")
    assert code == 1
    assert "auto_map" in text
    assert "keeps every rule" not in text
