"""The preflight: every rule that can be checked before a node is bought, with its reason and a way out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainyard.errors import Problem
from trainyard.neuron.engines.base import Engine
from trainyard.neuron.instances import Instance, chips_for
from trainyard.neuron.memory import Memory, memory_of
from trainyard.neuron.models import ModelFacts


@dataclass(frozen=True)
class Ask:
    """What a spec asks of the hardware. host_memory_bytes: the compile pod's memory limit."""

    tensor_parallel: int
    batch_size: int
    sequence_length: int
    host_memory_bytes: int


@dataclass(frozen=True)
class Preflight:
    lnc: int
    chips: int
    memory: Memory
    problems: tuple[Problem, ...]


def preflight(facts: ModelFacts, engine: Engine, kind: Instance, ask: Ask) -> Preflight:
    """Checks all rules and returns every broken one."""
    lnc = engine.lnc(kind.family)
    tp = ask.tensor_parallel
    memory = memory_of(facts, kind, lnc, tp, ask.batch_size, ask.sequence_length)
    problems = [
        *_support(facts, engine, kind),
        *_parallelism(facts, engine, kind, lnc, tp),
        *_shapes(facts, ask),
        *_fit(facts, kind, lnc, ask, memory),
    ]
    return Preflight(lnc, chips_for(tp, kind, lnc), memory, tuple(problems))


def _support(facts: ModelFacts, engine: Engine, kind: Instance) -> Iterator[Problem]:
    if kind.family not in engine.families:
        yield Problem(
            "hardware.instance_type",
            kind.name,
            f"engine {engine.name} does not run on {kind.family}",
            f"Use an instance of {', '.join(sorted(engine.families))}, or another engine.",
        )
    if facts.model_type not in engine.model_types:
        yield Problem(
            "model.config.model_type",
            facts.model_type,
            f"engine {engine.name} {engine.versions.engine} has no such architecture",
            f"It takes {', '.join(sorted(engine.model_types))}.",
        )
    if facts.dtype not in engine.dtypes:
        yield Problem(
            "model.config.torch_dtype",
            facts.dtype,
            f"engine {engine.name} does not take this dtype",
            f"Publish the weights as one of {', '.join(sorted(engine.dtypes))}.",
        )


def _parallelism(facts: ModelFacts, engine: Engine, kind: Instance, lnc: int, tp: int) -> Iterator[Problem]:
    cores = kind.cores(lnc)
    allowed = engine.tensor_parallels(cores)
    if tp not in allowed:
        yield Problem(
            "hardware.tensor_parallel",
            tp,
            f"{kind.name} has {cores} logical cores (LNC={lnc}); engine {engine.name} takes TP "
            f"{', '.join(map(str, allowed))} there",
            "TP counts logical cores, not chips. Choose one of these.",
        )
    if facts.heads % tp:
        dividing = [str(value) for value in allowed if facts.heads % value == 0]
        yield Problem(
            "hardware.tensor_parallel",
            tp,
            f"the model's {facts.heads} attention heads cannot be divided by {tp}",
            f"Choose one of {', '.join(dividing)}.",
        )
    chips = chips_for(tp, kind, lnc)
    if tp in allowed and chips < kind.chips and chips & (chips - 1):
        yield Problem(
            "hardware.tensor_parallel",
            tp,
            f"needs {chips} chips of {kind.chips}: part of a node is given out in powers of two only",
            "Choose a TP whose chips are a power of two, or the whole node.",
        )


def _shapes(facts: ModelFacts, ask: Ask) -> Iterator[Problem]:
    if ask.batch_size < 2:
        yield Problem(
            "compile.batch_size",
            ask.batch_size,
            "continuous batching, the only mode that vLLM serves, needs a batch of at least 2",
            "Use 2 or more.",
        )
    if ask.sequence_length > facts.max_positions:
        yield Problem(
            "compile.sequence_length",
            ask.sequence_length,
            f"the model was made for {facts.max_positions} positions",
            f"Use at most {facts.max_positions}.",
        )


def _fit(facts: ModelFacts, kind: Instance, lnc: int, ask: Ask, memory: Memory) -> Iterator[Problem]:
    if memory.free < 0:
        yield Problem(
            "hardware.tensor_parallel",
            ask.tensor_parallel,
            f"the model does not fit: a logical core of {kind.name} has {_gb(memory.hbm)}, needed are "
            f"{_gb(memory.weights)} of weights + {_gb(memory.kv_cache)} of KV cache + "
            f"{_gb(memory.overhead)} of overhead",
            _way_out(facts, kind, lnc, ask),
        )
    if ask.host_memory_bytes < 2 * facts.weight_bytes:
        yield Problem(
            "compile.memory",
            _gb(ask.host_memory_bytes),
            f"sharding holds the weights ({_gb(facts.weight_bytes)}) twice in host memory",
            f"Ask for at least {-(-2 * facts.weight_bytes // 2**30)}Gi ({kind.name} has "
            f"{kind.memory_gib}Gi).",
        )


def _way_out(facts: ModelFacts, kind: Instance, lnc: int, ask: Ask) -> str:
    for tp in (1, 2, 4, 8, 16, 32, 64):
        if tp > kind.cores(lnc) or facts.heads % tp or tp <= ask.tensor_parallel:
            continue
        if memory_of(facts, kind, lnc, tp, ask.batch_size, ask.sequence_length).free >= 0:
            return f"TP {tp} fits on {kind.name}."
    return (
        f"No TP of {kind.name} holds it at batch {ask.batch_size} and sequence {ask.sequence_length}: "
        "use a larger instance type, or a smaller batch or sequence."
    )


def _gb(value: int) -> str:
    return f"{value / 1e9:.1f} GB"
