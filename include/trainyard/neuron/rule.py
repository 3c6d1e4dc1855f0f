"""What is asked of the hardware, and what the rules say to it: the data of a preflight."""

from __future__ import annotations

from dataclasses import dataclass

from trainyard.errors import Problem
from trainyard.neuron.engines.base import Engine, Holds, Host
from trainyard.neuron.instances import Instance
from trainyard.neuron.memory import Memory
from trainyard.neuron.models import ModelFacts


@dataclass(frozen=True)
class Ask:
    """What a spec asks of the hardware.

    compile_memory_bytes, serve_memory_bytes: limits of the pods; None: as much as is needed. CPUs: 0 is not
    asked. lnc, holds: None is the engine's default. quantization: made of the weights while compiling.
    has_token: there is a Hub token that may read gated models. nodepool: "" is not asked.
    longest_request: tokens that the load test can ask for at once, answer included; 0: not known here.
    shows_images: it shows pictures.
    """

    tensor_parallel: int
    batch_size: int
    sequence_length: int
    compile_memory_bytes: int | None = None
    serve_memory_bytes: int | None = None
    lnc: int | None = None
    holds: Holds | None = None
    quantization: str | None = None
    has_token: bool = False
    compile_cpus: int = 0
    serve_cpus: int = 0
    nodepool: str = ""
    longest_request: int = 0
    shows_images: bool = False


@dataclass(frozen=True)
class Rule:
    """words: why, with the numbers. problem: with a way out, where it failed."""

    name: str
    passed: bool
    words: str
    problem: Problem | None = None


@dataclass(frozen=True)
class Preflight:
    """loaded: the number format that the weights have in device memory. host: what the pods need at least."""

    lnc: int
    chips: int
    holds: Holds
    memory: Memory
    rules: tuple[Rule, ...]
    loaded: str
    host: Host

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(rule.problem for rule in self.rules if rule.problem is not None)

    @property
    def passed(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Question:
    """All that a rule may look at. lnc and holds are decided.

    loaded_bytes: of the weights as a device holds them. read_bytes: as the host reads them.
    """

    facts: ModelFacts
    engine: Engine
    kind: Instance
    ask: Ask
    lnc: int
    chips: int
    holds: Holds
    loaded: str
    loaded_bytes: int
    read_bytes: int
    memory: Memory
    host: Host


def passed(name: str, words: str) -> Rule:
    return Rule(name, True, words)


def failed(name: str, field: str, value: object, rule: str, remedy: str) -> Rule:
    return Rule(name, False, rule, Problem(field, value, rule, remedy))
