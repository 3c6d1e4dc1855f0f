"""The preflight: every rule that can be checked before a node is bought, with its reason and a way out."""

from __future__ import annotations

from collections.abc import Callable

from trainyard.neuron import host_rules, quantization, size_rules, support_rules
from trainyard.neuron.engines.base import Build, Engine, Host
from trainyard.neuron.instances import Instance, chips_for
from trainyard.neuron.memory import memory_of
from trainyard.neuron.models import ModelFacts
from trainyard.neuron.rule import Ask, Preflight, Question, Rule

_CHECKS: tuple[Callable[[Question], Rule | None], ...] = (
    support_rules.family,
    support_rules.nodepool,
    support_rules.architecture,
    support_rules.dtype,
    support_rules.quantized,
    support_rules.images,
    support_rules.licence,
    support_rules.lnc,
    support_rules.bundle,
    size_rules.cores,
    size_rules.heads,
    size_rules.chips,
    size_rules.batch,
    size_rules.sequence,
    size_rules.load,
    size_rules.fit,
    host_rules.compile_memory,
    host_rules.serve_memory,
    host_rules.cpus,
)


def preflight(facts: ModelFacts, engine: Engine, kind: Instance, ask: Ask) -> Preflight:
    """Checks all rules; says to each whether it is kept, and why. Never raises, whatever the facts are."""
    question = _question(facts, engine, kind, ask)
    return Preflight(
        lnc=question.lnc,
        chips=question.chips,
        holds=question.holds,
        memory=question.memory,
        rules=tuple(rule for check in _CHECKS if (rule := check(question)) is not None),
        loaded=question.loaded,
        host=question.host,
    )


def _question(facts: ModelFacts, engine: Engine, kind: Instance, ask: Ask) -> Question:
    lnc = _lnc(engine, kind, ask)
    tp = max(1, ask.tensor_parallel)
    holds = ask.holds or engine.holds[0]
    loaded = quantization.loaded_form(facts, engine, kind.target, ask.quantization)
    loaded_bytes = quantization.bytes_loaded(facts, loaded)
    build = Build(
        tensor_parallel=tp,
        lnc=lnc,
        batch_size=ask.batch_size,
        sequence_length=ask.sequence_length,
        instance_family=kind.family,
        target=kind.target,
        model_type=facts.model_type,
        dtype=facts.dtype,
        holds=holds,
        quantization=ask.quantization,
        model_dir="",
        output_dir="",
        cache_dir="",
    )
    # Sharding reads the checkpoint as it is published, or as somebody dequantized it.
    read = facts.weight_bytes if facts.quantization in (None, loaded) else loaded_bytes
    host: Host = engine.host(read, build)
    return Question(
        facts=facts,
        engine=engine,
        kind=kind,
        ask=ask,
        lnc=lnc,
        chips=chips_for(tp, kind, lnc),
        holds=holds,
        loaded=loaded,
        loaded_bytes=loaded_bytes,
        read_bytes=read,
        memory=memory_of(facts, kind, lnc, tp, ask.batch_size, ask.sequence_length, loaded_bytes),
        host=host,
    )


def _lnc(engine: Engine, kind: Instance, ask: Ask) -> int:
    """What is asked for where the chip has it, else the engine's default there, else the chip's."""
    if ask.lnc in kind.lncs:
        return ask.lnc
    return next((value for value in engine.lncs(kind.target) if value in kind.lncs), kind.default_lnc)


__all__ = ["Ask", "Preflight", "Question", "Rule", "preflight"]
