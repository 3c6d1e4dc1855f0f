"""Rules of size on the device: cores, heads, chips, shapes and memory."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard.neuron.instances import INSTANCES, Instance, chips_for
from trainyard.neuron.memory import kv_heads_on, memory_of, size
from trainyard.neuron.models import ModelFacts
from trainyard.neuron.rule import Question, Rule, failed, passed

_TP = "hardware.tensor_parallel"
# What chat templates put around a question: 5 to 40 tokens, the longest with a date and a system prompt.
TEMPLATE_TOKENS = 48


def cores(question: Question) -> Rule:
    engine, kind, tp = question.engine, question.kind, question.ask.tensor_parallel
    have = kind.cores(question.lnc)
    allowed = engine.tensor_parallels(have)
    if tp in allowed:
        return passed("cores", f"TP {tp} takes {tp} of {have} logical cores")
    return failed(
        "cores",
        _TP,
        tp,
        f"{kind.name} has {have} logical cores (LNC={question.lnc}); engine {engine.name} takes TP "
        f"{_list(allowed)} there",
        "TP counts logical cores, not chips. Choose one of these.",
    )


def heads(question: Question) -> Rule:
    """NxD's attention, which optimum-neuron took over, pads query heads to a multiple of TP."""
    facts, tp = question.facts, max(1, question.ask.tensor_parallel)
    if not (question.engine.pads_heads or _divides(facts, tp)):
        kv = "" if facts.heads % tp else f" together with its {facts.kv_heads} KV heads"
        allowed = question.engine.tensor_parallels(question.kind.cores(question.lnc))
        return failed(
            "heads",
            _TP,
            tp,
            f"the model's {facts.heads} attention heads cannot be divided by {tp}{kv}",
            f"Choose one of {_list(value for value in allowed if _divides(facts, value))}.",
        )
    if facts.heads % tp == 0:
        return passed(
            "heads", f"{facts.heads} attention heads are {facts.heads // tp} a core{_copies(question)}"
        )
    padded = -(-facts.heads // tp) * tp
    return passed(
        "heads",
        f"{facts.heads} attention heads cannot be divided by {tp}: {question.engine.name} pads them to "
        f"{padded}, so {(padded - facts.heads) * 100 // padded} % of the attention computes "
        f"nothing{_copies(question)}",
    )


def _divides(facts: ModelFacts, tp: int) -> bool:
    """Do the heads come out even, and the KV heads with them (latent attention has none)?"""
    even = facts.latent or facts.kv_heads % tp == 0 or tp % facts.kv_heads == 0
    return facts.heads % tp == 0 and bool(even)


def _copies(question: Question) -> str:
    facts, tp = question.facts, max(1, question.ask.tensor_parallel)
    if facts.latent:
        return "; the latent cache is copied to each core"
    if facts.kv_heads % tp and tp % facts.kv_heads:
        return f"; {facts.kv_heads} KV heads become {kv_heads_on(facts, tp)} a core, one for each query head"
    if facts.kv_heads < tp:
        return f"; {facts.kv_heads} KV heads are copied to {tp} cores"
    return ""


def chips(question: Question) -> Rule | None:
    kind, found = question.kind, question.chips
    if found > kind.chips:
        return None  # the rule of cores has said so
    if found == kind.chips:
        return passed("chips", f"all {kind.chips} chip(s) of {kind.name}")
    if found & (found - 1):
        return failed(
            "chips",
            _TP,
            question.ask.tensor_parallel,
            f"needs {found} chips of {kind.chips}: part of a node is given out in powers of two only",
            "Choose a TP whose chips are a power of two, or the whole node.",
        )
    return passed(
        "chips",
        f"{found} of {kind.chips} chips: a power of two, so part of a node can be given (all pods there must "
        "ask alike, and the Neuron scheduler extension must run)",
    )


def batch(question: Question) -> Rule:
    least, asked = question.engine.min_batch, question.ask.batch_size
    if asked >= least:
        return passed("batch", f"a batch of {asked}; {question.engine.name} needs {least} or more")
    return failed(
        "batch",
        "compile.batch_size",
        asked,
        f"continuous batching, the only mode that engine {question.engine.name} serves, needs a batch of at "
        f"least {least}",
        f"Use {least} or more.",
    )


def sequence(question: Question) -> Rule:
    most, asked = question.facts.max_positions, question.ask.sequence_length
    if asked <= most:
        return passed("sequence", f"{asked} of the model's {most} positions")
    return failed(
        "sequence",
        "compile.sequence_length",
        asked,
        f"the model was made for {most} positions",
        f"Use at most {most}.",
    )


def load(question: Question) -> Rule | None:
    """A server refuses what is longer than it was compiled for: each such request would count as failed."""
    asked, most = question.ask.longest_request, question.ask.sequence_length
    if not asked:
        return None
    needed = asked + TEMPLATE_TOKENS
    if needed <= most:
        return passed("load", f"{needed} of {most} tokens in the longest request of the load test")
    return failed(
        "load",
        "rollout.load",
        asked,
        f"the longest request of the load test needs {needed} tokens (prompt, answer, all turns before it, "
        f"and {TEMPLATE_TOKENS} for the chat template), and {most} are compiled",
        "Lower prompt, output, prefix, turns or images of rollout.load, or raise compile.sequence_length.",
    )


def fit(question: Question) -> Rule:
    kind, memory, tp = question.kind, question.memory, max(1, question.ask.tensor_parallel)
    parts = (
        f"{size(memory.weights)} of weights + {size(memory.kv_cache)} of KV cache + "
        f"{size(memory.overhead)} of overhead"
    )
    if memory.free >= 0:
        return passed("fit", f"a core has {size(memory.hbm)}: {parts}, {size(memory.free)} free")
    return failed(
        "fit",
        _TP,
        question.ask.tensor_parallel,
        f"the model does not fit: a logical core of {kind.name} has {size(memory.hbm)}, needed are {parts} "
        f"(TP {tp}: {size(memory.hbm * tp)} for {size(question.loaded_bytes)} of {question.loaded} weights)",
        _way_out(question),
    )


def _way_out(question: Question) -> str:
    """The next TP, or else the first other instance of the engine, that holds the model."""
    tp = question.ask.tensor_parallel
    for value in _fitting(question, question.kind):
        if value > tp:
            return f"TP {value} fits on {question.kind.name}."
    shapes = f"batch {question.ask.batch_size} and sequence {question.ask.sequence_length}"
    for kind in others(question):
        if kind.hbm_gb > question.kind.hbm_gb:
            for value in _fitting(question, kind):
                return f"No TP of {question.kind.name} holds it at {shapes}: {kind.name} does, at TP {value}."
    return (
        f"No TP of {question.kind.name} holds it at {shapes}: use a larger instance type, or a smaller batch "
        "or sequence."
    )


def others(question: Question) -> list[Instance]:
    """Instance types of the engine, those of the same family first, then those with the same cores."""
    return sorted(
        (kind for kind in INSTANCES.values() if kind.family in question.engine.families),
        key=lambda kind: (kind.family != question.kind.family, kind.target != question.kind.target),
    )


def _fitting(question: Question, kind: Instance) -> list[int]:
    engine, facts, ask = question.engine, question.facts, question.ask
    able = [value for value in engine.lncs(kind.target) if value in kind.lncs]
    lnc = question.lnc if question.lnc in able else next(iter(able), kind.default_lnc)
    return [
        value
        for value in engine.tensor_parallels(kind.cores(lnc))
        if (question.engine.pads_heads or _divides(facts, value))
        and chips_for(value, kind, lnc) <= kind.chips
        and memory_of(
            facts, kind, lnc, value, ask.batch_size, ask.sequence_length, question.loaded_bytes
        ).free >= 0
    ]  # fmt: skip


def _list(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in values) or "none"
