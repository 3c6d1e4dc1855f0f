"""Which number format runs where: the published table row by row, and each way of refusing one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.neuron.plain import GB, facts, judged, plain, rule_of
from trainyard.neuron.engines import engine, engines
from trainyard.neuron.instances import instance
from trainyard.neuron.quantization import FORMATS, loaded_form, support, table, targets_of

TRN1 = instance("trn1.32xlarge")
FP8_ON_TRN2 = {"fp8_e4m3": frozenset({"trn2"})}


def how(name: str, target: str, form: str) -> tuple[str, ...]:
    return support(engine(name), target, form).how


def anywhere(form: str) -> set[tuple[str, str]]:
    return {(row.engine, row.target) for row in table(engines()) if row.format == form and row.possible}


def test_the_table_has_a_cell_for_every_format_engine_and_generation() -> None:
    rows = table(engines())
    assert len(rows) == len(FORMATS) * len(engines()) * 2
    assert {row.format for row in rows} == set(FORMATS)


def test_bf16_is_the_default_everywhere() -> None:
    # "BF16: default"
    for found in engines().values():
        for target in targets_of(found):
            assert "loaded" in support(found, target, "bfloat16").how


def test_fp16_is_supported_by_the_engines_of_nxd() -> None:
    # "FP16: supported", which the native plugin narrows to BF16.
    assert anywhere("float16") >= {("optimum", "trn2"), ("nxdi", "trn1"), ("tgi", "trn1")}


def test_fp8_is_made_on_trainium2_only() -> None:
    # "FP8 (E4M3, E5M2): Trainium2 supported, Inferentia2 limited": one engine makes E4M3, and there only.
    assert how("nxdi", "trn2", "fp8_e4m3") == ("made",)
    assert how("nxdi", "trn1", "fp8_e4m3") == ("no",)
    assert anywhere("fp8_e5m2") == set()


def test_int8_weights_depend_on_the_engine() -> None:
    # "INT8 (weights): supported (model-specific)"
    assert how("nxdi", "trn1", "int8") == ("made",)
    assert how("optimum", "trn2", "int8") == ("no",)


@pytest.mark.parametrize("form", ["awq", "gptq", "gguf"])
def test_packed_formats_are_loaded_by_no_engine(form: str) -> None:
    # "AWQ, GPTQ: limited" comes to nothing in these engines; "GGUF: not supported".
    assert anywhere(form) == set()


def test_nothing_runs_where_the_engine_does_not() -> None:
    assert how("tgi", "trn2", "bfloat16") == ("no",)
    assert how("native", "trn1", "bfloat16") == ("no",)


@pytest.mark.parametrize("form", ["awq", "gptq", "gguf", "fp8_e4m3", "fp8_e5m2", "int8", "unheard-of"])
@pytest.mark.parametrize("name", ["optimum", "nxdi", "native", "tgi"])
def test_a_quantized_checkpoint_that_cannot_be_loaded_is_reckoned_as_bf16_and_refused(
    name: str, form: str
) -> None:
    result = judged(facts(quantization=form, weight_bytes=9 * GB), engine(name), TRN1, tensor_parallel=16)
    rule = rule_of(result, "quantization")
    assert rule.problem is not None
    assert (rule.problem.field, rule.problem.value) == ("model.config.quantization_config", form)
    assert "dequantized to BF16 it is 16.0 GB instead of 9.0 GB" in rule.words
    assert result.loaded == "bfloat16"
    assert result.memory.weights_total == 16 * GB


def test_a_checkpoint_whose_format_the_engine_loads_is_reckoned_as_it_is() -> None:
    able = plain(loads_quantized=FP8_ON_TRN2)
    model = facts(quantization="fp8_e4m3", weight_bytes=9 * GB)
    result = judged(model, able)
    assert result.passed
    assert result.loaded == "fp8_e4m3"
    assert result.memory.weights_total == 9 * GB
    refused = rule_of(judged(model, able, TRN1), "quantization")
    assert "loads fp8_e4m3 on trn2 only, and trn1.32xlarge is trn1" in refused.words


def test_weights_that_the_engine_quantizes_are_reckoned_small_and_read_whole() -> None:
    able = plain(quantizes=FP8_ON_TRN2)
    result = judged(facts(kept_parameters=GB), able, quantization="fp8_e4m3")
    assert result.passed
    assert result.memory.weights_total == 9 * GB  # 8 bit, but a billion that stay at 16
    assert result.host.compiling == 32 * GB


@pytest.mark.parametrize(
    ("ask", "engine_has", "model", "words"),
    [
        ("int8", FP8_ON_TRN2, {}, "engine plain does not quantize to int8"),
        ("fp8_e4m3", FP8_ON_TRN2, {"dtype": "float32"}, "these are float32"),
        ("fp8_e4m3", FP8_ON_TRN2, {"quantization": "awq"}, "quantized already (awq)"),
        ("fp8_e4m3", {"fp8_e4m3": frozenset({"trn1"})}, {}, "makes fp8_e4m3 on trn1 only"),
    ],
)
def test_a_quantization_that_cannot_be_made_is_refused(
    ask: str, engine_has: dict[str, frozenset[str]], model: dict[str, Any], words: str
) -> None:
    result = judged(
        facts(**model),
        plain(quantizes=engine_has, dtypes=frozenset({"bfloat16", "float32"})),
        quantization=ask,
    )
    rule = rule_of(result, "quantization")
    assert rule.problem is not None
    assert rule.problem.field == "compile.quantization"
    assert words in rule.words


def test_what_cannot_be_made_is_not_reckoned_with() -> None:
    assert loaded_form(facts(), plain(), "trn2", "int8") == "bfloat16"
