"""Number formats of weights: what an engine can load or make, on which generation of chips.

The published tables speak of "Neuron" as one; it is the engine that decides. A format is *loaded* when the
checkpoint comes in it, and *made* when the engine quantizes BF16 or FP16 weights itself. Source: the engines'
own modules; the FP8 matrix units came with Trainium2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trainyard.neuron.engines.base import Engine
from trainyard.neuron.instances import INSTANCES, Instance
from trainyard.neuron.memory import size
from trainyard.neuron.models import ModelFacts
from trainyard.neuron.rule import Rule, failed, passed

PLAIN = ("bfloat16", "float16", "float32")
# Those that people ask for, in the order of the published table.
FORMATS = ("bfloat16", "float16", "fp8_e4m3", "fp8_e5m2", "int8", "awq", "gptq", "gguf")

How = Literal["loaded", "made", "no"]


@dataclass(frozen=True)
class Support:
    """One cell of the table: how an engine comes to weights in a format on chips of a target."""

    engine: str
    target: str
    format: str
    how: tuple[How, ...]

    @property
    def possible(self) -> bool:
        return self.how != ("no",)


def targets_of(engine: Engine) -> tuple[str, ...]:
    """Compile targets of the instances that it runs on, sorted."""
    return tuple(sorted({kind.target for kind in INSTANCES.values() if kind.family in engine.families}))


def support(engine: Engine, target: str, form: str) -> Support:
    """What an engine can do with a format on a target; also for formats that nobody knows."""
    how: list[How] = []
    if target in targets_of(engine):
        if form in engine.dtypes or target in engine.loads_quantized.get(form, frozenset()):
            how.append("loaded")
        if target in engine.quantizes.get(form, frozenset()):
            how.append("made")
    return Support(engine.name, target, form, tuple(how) or ("no",))


def table(engines: Mapping[str, Engine], formats: tuple[str, ...] = FORMATS) -> tuple[Support, ...]:
    """Every format by engine and chip generation."""
    return tuple(
        support(engine, target, form)
        for form in formats
        for engine in engines.values()
        for target in ("trn1", "trn2")
    )


def loaded_form(facts: ModelFacts, engine: Engine, target: str, wanted: str | None) -> str:
    """The format that the weights would have on the device.

    A quantized checkpoint that the engine cannot load counts as BF16: dequantizing it is the only way there.
    """
    if facts.quantization is not None:
        fits = target in engine.loads_quantized.get(facts.quantization, frozenset())
        return facts.quantization if fits else "bfloat16"
    if wanted is not None and target in engine.quantizes.get(wanted, frozenset()):
        return wanted
    return facts.dtype


def bytes_loaded(facts: ModelFacts, form: str) -> int:
    """Bytes of all weights in a format; as published where nobody can say more."""
    try:
        return facts.bytes_as(form)
    except ValueError:
        return facts.weight_bytes


def rule(facts: ModelFacts, engine: Engine, kind: Instance, wanted: str | None) -> Rule:
    """May these weights be loaded in this way?"""
    if facts.quantization is not None:
        return _published(facts, facts.quantization, engine, kind, wanted)
    if wanted is not None:
        return _asked(facts, engine, kind, wanted)
    return passed("quantization", f"not quantized: loaded as {facts.dtype}, {size(facts.weight_bytes)}")


def _published(facts: ModelFacts, form: str, engine: Engine, kind: Instance, wanted: str | None) -> Rule:
    if wanted is not None:
        return failed(
            "quantization",
            "compile.quantization",
            wanted,
            f"the published weights are quantized already ({form}), and only BF16 or FP16 can be quantized",
            "Leave it out, or follow a revision with plain weights.",
        )
    targets = engine.loads_quantized.get(form, frozenset())
    if kind.target in targets:
        return passed("quantization", f"{engine.name} loads {form} on {kind.chip} as it is published")
    plain = bytes_loaded(facts, "bfloat16")
    why = (
        f"engine {engine.name} loads {form} on {', '.join(sorted(targets))} only, and {kind.name} is "
        f"{kind.target}"
        if targets
        else f"engine {engine.name} loads no checkpoint that is quantized as {form}"
    )
    return failed(
        "quantization",
        "model.config.quantization_config",
        form,
        f"{why}; dequantized to BF16 it is {size(plain)} instead of {size(facts.weight_bytes)}, and so the "
        "memory is reckoned",
        "Publish the weights in BF16 and follow that repository"
        + (f", or use one of {', '.join(sorted(targets))}." if targets else "."),
    )


def _asked(facts: ModelFacts, engine: Engine, kind: Instance, wanted: str) -> Rule:
    targets = engine.quantizes.get(wanted, frozenset())
    if kind.target not in targets:
        able = sorted(form for form, where in engine.quantizes.items() if kind.target in where)
        why = (
            f"engine {engine.name} makes {wanted} on {', '.join(sorted(targets))} only, and {kind.name} is "
            f"{kind.target}"
            if targets
            else f"engine {engine.name} does not quantize to {wanted}"
        )
        remedy = f"It makes {', '.join(able)} there." if able else "Leave it out, or use another engine."
        return failed("quantization", "compile.quantization", wanted, why, remedy)
    if facts.dtype not in ("bfloat16", "float16"):
        return failed(
            "quantization",
            "compile.quantization",
            wanted,
            f"only BF16 or FP16 weights can be quantized, and these are {facts.dtype}",
            "Publish the weights in BF16.",
        )
    return passed(
        "quantization",
        f"{engine.name} makes {wanted} of {facts.dtype} while compiling: "
        f"{size(bytes_loaded(facts, wanted))} instead of {size(facts.weight_bytes)}",
    )
