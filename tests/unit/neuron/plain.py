"""A model and an engine with nothing special, to be made special by a test."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from trainyard.neuron.engines.base import Build, Cache, Command, Engine, Holds, Host, Versions, powers_of_two
from trainyard.neuron.instances import Instance, instance
from trainyard.neuron.models import ModelFacts
from trainyard.neuron.rule import Ask, Preflight, Rule
from trainyard.neuron.rules import preflight

GIB = 2**30
GB = 10**9

FACTS = ModelFacts(
    model_type="llama",
    architecture="LlamaForCausalLM",
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    hidden=4096,
    vocabulary=128_256,
    max_positions=8192,
    dtype="bfloat16",
    weight_bytes=16 * GB,
    parameters=8 * GB,
)
ASK = Ask(
    tensor_parallel=8,
    batch_size=8,
    sequence_length=4096,
    compile_memory_bytes=64 * GIB,
    serve_memory_bytes=64 * GIB,
)
TRN2 = instance("trn2.48xlarge")


@dataclass
class PlainEngine:
    """As an engine module writes it; what the preflight never calls is left out."""

    name: str = "plain"
    versions: Versions = field(default_factory=lambda: Versions("1.0", "2.0", "2.32", ""))
    families: frozenset[str] = frozenset({"trn1", "trn1n", "trn2", "trn2u", "inf2"})
    model_types: frozenset[str] = frozenset({"llama"})
    images_too: frozenset[str] = frozenset()
    dtypes: frozenset[str] = frozenset({"bfloat16", "float16"})
    loads_quantized: dict[str, frozenset[str]] = field(default_factory=dict)
    quantizes: dict[str, frozenset[str]] = field(default_factory=dict)
    holds: tuple[Holds, ...] = ("weights",)
    cache: Cache = "none"
    min_batch: int = 2
    running_metrics: tuple[str, ...] = ()
    pads_heads: bool = False
    degrees: tuple[int, ...] | None = None
    lncs_by_target: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"trn1": (1,), "trn2": (2,)})

    def image(self, region: str) -> str:
        return f"plain.{region}"

    def lncs(self, target: str) -> tuple[int, ...]:
        return self.lncs_by_target.get(target, ())

    def tensor_parallels(self, cores: int) -> tuple[int, ...]:
        return self.degrees if self.degrees is not None else powers_of_two(cores)

    def host(self, weight_bytes: int, build: Build) -> Host:
        return Host(compiling=2 * weight_bytes, serving=weight_bytes)

    def compile_command(self, build: Build) -> Command:
        raise NotImplementedError

    lookup_command = expects = problems_of_bundle = layout = serve_command = doubts = compile_command


def plain(**changes: Any) -> Engine:
    return PlainEngine(**changes)  # type: ignore[return-value]


def facts(**changes: Any) -> ModelFacts:
    return replace(FACTS, **changes)


def judged(
    model: ModelFacts = FACTS, engine: Engine | None = None, kind: Instance = TRN2, **ask: Any
) -> Preflight:
    return preflight(model, engine or plain(), kind, replace(ASK, **ask))


def rule_of(result: Preflight, name: str) -> Rule:
    return next(rule for rule in result.rules if rule.name == name)
