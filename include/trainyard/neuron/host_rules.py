"""Rules of the host: memory for sharding, and CPUs."""

from __future__ import annotations

from trainyard.neuron.memory import size
from trainyard.neuron.rule import Question, Rule, failed, passed
from trainyard.neuron.size_rules import others


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
    for kind in others(question):
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
