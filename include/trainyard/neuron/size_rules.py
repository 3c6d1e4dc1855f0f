"""Rules of size: cores, heads, chips, shapes, device memory and host memory."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard.neuron.instances import INSTANCES, Instance, chips_for
from trainyard.neuron.memory import memory_of, size
from trainyard.neuron.rule import Question, Rule, failed, passed

_TP = "hardware.tensor_parallel"


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
    facts, tp = question.facts, max(1, question.ask.tensor_parallel)
    if facts.heads % tp == 0:
        return passed(
            "heads", f"{facts.heads} attention heads are {facts.heads // tp} a core{_copies(question)}"
        )
    if pads_heads(question):
        padded = -(-facts.heads // tp) * tp
        return passed(
            "heads",
            f"{facts.heads} attention heads cannot be divided by {tp}: {question.engine.name} pads them to "
            f"{padded}, so {(padded - facts.heads) * 100 // padded} % of the attention computes "
            f"nothing{_copies(question)}",
        )
    allowed = question.engine.tensor_parallels(question.kind.cores(question.lnc))
    return failed(
        "heads",
        _TP,
        tp,
        f"the model's {facts.heads} attention heads cannot be divided by {tp}",
        f"Choose one of {_list(value for value in allowed if facts.heads % value == 0)}.",
    )


def pads_heads(question: Question) -> bool:
    """NxD's attention, which optimum-neuron took over, pads query heads to a multiple of TP."""
    return bool(getattr(question.engine, "pads_heads", question.engine.cache == "neuronx"))


def _copies(question: Question) -> str:
    facts, tp = question.facts, question.ask.tensor_parallel
    if facts.latent:
        return "; the latent cache is copied to each core"
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
    for kind in _others(question):
        if kind.hbm_gb > question.kind.hbm_gb:
            for value in _fitting(question, kind):
                return f"No TP of {question.kind.name} holds it at {shapes}: {kind.name} does, at TP {value}."
    return (
        f"No TP of {question.kind.name} holds it at {shapes}: use a larger instance type, or a smaller batch "
        "or sequence."
    )


def _others(question: Question) -> list[Instance]:
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
        if (pads_heads(question) or facts.heads % value == 0)
        and chips_for(value, kind, lnc) <= kind.chips
        and memory_of(
            facts, kind, lnc, value, ask.batch_size, ask.sequence_length, question.loaded_bytes
        ).free >= 0
    ]  # fmt: skip


def compile_memory(question: Question) -> Rule:
    return _host_memory(
        question,
        "compile.memory",
        question.host.compiling,
        question.ask.compile_memory_bytes,
        "the compile pod",
    )


def serve_memory(question: Question) -> Rule:
    return _host_memory(
        question, "serving.memory", question.host.serving, question.ask.serve_memory_bytes, "a server"
    )


def _host_memory(question: Question, field: str, needs: int, asked: int | None, who: str) -> Rule:
    """Has the node what sharding needs, is the pod's limit enough for it, and has the node that much?"""
    name, kind = field.replace(".", "_"), question.kind
    have, wants = kind.usable_memory_bytes, needs if asked is None else asked
    reason = f"{who} holds no weights in host memory"
    if needs:
        reason = f"{who} holds the weights in host memory {_times(needs, question)} ({size(needs)})"
    node = f"{have >> 30}Gi of its {kind.memory_gib}Gi for pods"
    if needs > have:
        return failed(
            name, field, size(wants), f"{reason}, and {kind.name} has {node}", _more_memory(question, needs)
        )
    if wants < needs:
        return failed(
            name,
            field,
            size(wants),
            f"{who} holds the weights ({size(question.read_bytes)}) {_times(needs, question)} in host memory",
            f"Ask for at least {gibibytes(needs)}Gi ({kind.name} has {node}).",
        )
    if wants > have:
        return failed(name, field, size(wants), f"{kind.name} has {node}", f"Ask for at most {have >> 30}Gi.")
    ask = f"{gibibytes(wants)}Gi asked" if asked is not None else f"ask for {gibibytes(needs)}Gi"
    words = f"{reason}; {ask} of {have >> 30}Gi that {kind.name} has for pods"
    share = kind.chips // question.chips
    if have // max(1, wants) < share:
        words += f". Its chips are enough for {share} such pods, its memory for {have // max(1, wants)}"
    return passed(name, words)


def _times(needs: int, question: Question) -> str:
    """How often the weights are held, in a word."""
    times = round(needs / question.read_bytes, 1) if question.read_bytes else 0.0
    return {1.0: "once", 2.0: "twice"}.get(times, f"{times:g} times")


def _more_memory(question: Question, needs: int) -> str:
    for kind in _others(question):
        if kind.usable_memory_bytes >= needs:
            return f"Use an instance type with more memory, such as {kind.name} ({kind.memory_gib}Gi)."
    return "No instance type has so much: this model cannot be sharded on one host."


def cpus(question: Question) -> Rule:
    kind, ask = question.kind, question.ask
    field, asked = max(
        ("compile.cpu", ask.compile_cpus), ("serving.cpu", ask.serve_cpus), key=lambda item: item[1]
    )
    if asked <= kind.usable_cpus:
        return passed(
            "cpus", f"{asked or 'no'} CPUs asked of {kind.usable_cpus} that {kind.name} has for pods"
        )
    return failed(
        "cpus",
        field,
        asked,
        f"{kind.name} has {kind.vcpus} vCPUs, of which the node itself needs {kind.vcpus - kind.usable_cpus}",
        f"Ask for at most {kind.usable_cpus}, or use a larger instance type.",
    )


def gibibytes(count: int) -> int:
    """Whole GiB that hold so many bytes: how a spec asks for memory."""
    return -(-count // 2**30)


def _list(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in values) or "none"
