"""The cheapest engine, instance type and TP that keep every rule, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from trainyard.neuron.engines.base import Engine
from trainyard.neuron.instances import INSTANCES, Instance, nodes_for
from trainyard.neuron.memory import Memory, size
from trainyard.neuron.models import ModelFacts
from trainyard.neuron.prices import TABLE, Price, Prices
from trainyard.neuron.rule import Ask, Preflight, Rule
from trainyard.neuron.rules import preflight

# Of equally cheap ones: the released stack of widest use first, then the legacy, the beta, and what is only
# maintained. Others follow by name.
_ORDER = ("optimum", "nxdi", "native", "tgi")
# Rules that the engine alone decides, whatever the instance type; of the family it says so once for all.
OF_ENGINE = ("architecture", "dtype", "licence", "bundle", "batch", "sequence", "family")


@dataclass(frozen=True)
class Choice:
    """One combination. dollars: an hour of its nodes; None: the price table does not say."""

    engine: str
    instance: str
    tensor_parallel: int
    result: Preflight
    nodes: int
    price: Price | None

    @property
    def dollars(self) -> float | None:
        return self.price.dollars * self.nodes if self.price else None


@dataclass(frozen=True)
class Refusal:
    """Combinations that fell out for one reason: each of these engines on each of these instance types.

    words: of the largest of the degrees.
    """

    engines: tuple[str, ...]
    instances: tuple[str, ...]
    tensor_parallels: tuple[int, ...]
    rule: str
    words: str


@dataclass(frozen=True)
class Proposal:
    """choices: all that keep every rule, best first."""

    choices: tuple[Choice, ...]
    refusals: tuple[Refusal, ...]

    @property
    def best(self) -> Choice | None:
        return self.choices[0] if self.choices else None


def propose(
    facts: ModelFacts,
    ask: Ask,
    engines: Mapping[str, Engine],
    prices: Prices = TABLE,
    *,
    engine: str | None = None,
    instance: str | None = None,
    tensor_parallel: int | None = None,
    replicas: int = 1,
) -> Proposal:
    """Goes over all engines, instance types and degrees but those that are given.

    The degree in `ask` does not count; `tensor_parallel` does. Cheapest is by whole nodes; of equal ones, the
    fewer chips, then the fewer cores, then the engine's order.
    """
    ranked: list[tuple[tuple[float, ...], Choice]] = []
    fallen: list[_Fallen] = []
    for one in _engines(engines, engine):
        for kind in INSTANCES.values():
            if instance not in (None, kind.name):
                continue
            for tp in _degrees(one, kind, ask, tensor_parallel):
                result = preflight(facts, one, kind, replace(ask, tensor_parallel=tp))
                if not result.passed:
                    fallen.append(_Fallen(one, kind, tp, _first(result), result.memory))
                    continue
                choice = _choice(one, kind, tp, result, ask, prices, replicas)
                cost = choice.dollars if choice.dollars is not None else inf
                ranked.append(((cost, result.chips, tp, _rank(one)), choice))
    ranked.sort(key=lambda item: item[0])
    return Proposal(tuple(choice for _, choice in ranked), _grouped(fallen))


def _choice(
    engine: Engine, kind: Instance, tp: int, result: Preflight, ask: Ask, prices: Prices, replicas: int
) -> Choice:
    memory = result.host.serving if ask.serve_memory_bytes is None else ask.serve_memory_bytes
    nodes = nodes_for(kind, replicas, result.chips, memory, ask.serve_cpus)
    return Choice(engine.name, kind.name, tp, result, nodes, prices.of(kind.name))


def _engines(engines: Mapping[str, Engine], only: str | None) -> list[Engine]:
    chosen = [engine for engine in engines.values() if only in (None, engine.name)]
    return sorted(chosen, key=lambda engine: (_rank(engine), engine.name))


def _rank(engine: Engine) -> int:
    return _ORDER.index(engine.name) if engine.name in _ORDER else len(_ORDER)


def _degrees(engine: Engine, kind: Instance, ask: Ask, only: int | None) -> tuple[int, ...]:
    if only is not None:
        return (only,)
    able = [value for value in (ask.lnc, *engine.lncs(kind.target)) if value in kind.lncs]
    lnc = next((value for value in able if value is not None), kind.default_lnc)
    return engine.tensor_parallels(kind.cores(lnc)) or (1,)


def _first(result: Preflight) -> Rule:
    """The broken rule that says most: what the engine can never do before what an instance cannot."""
    broken = [rule for rule in result.rules if not rule.passed]
    return min(broken, key=lambda rule: (rule.name not in OF_ENGINE, rule.name == "family"))


@dataclass(frozen=True)
class _Fallen:
    engine: Engine
    kind: Instance
    tensor_parallel: int
    rule: Rule
    memory: Memory

    @property
    def place(self) -> str:
        """Where one reason is looked for: everywhere, if the engine alone decides."""
        return "" if self.rule.name in OF_ENGINE else self.kind.name


# Instance types, degrees, rule and words; or engines in the place of instance types.
_Key = tuple[tuple[str, ...], tuple[int, ...], str, str]


def _grouped(fallen: list[_Fallen]) -> tuple[Refusal, ...]:
    """Few lines that a person can read: degrees of one engine and instance first, then what is alike."""
    places: dict[tuple[str, str, str], list[_Fallen]] = {}
    for item in fallen:
        places.setdefault((item.engine.name, item.place, item.rule.name), []).append(item)
    alike: dict[_Key, list[str]] = {}
    for (engine, _, rule), items in places.items():
        kinds = tuple(dict.fromkeys(item.kind.name for item in items))
        degrees = tuple(sorted({item.tensor_parallel for item in items}))
        alike.setdefault((kinds, degrees, rule, _words(items)), []).append(engine)
    merged: dict[_Key, list[str]] = {}
    for (kinds, degrees, rule, words), engines in alike.items():
        merged.setdefault((tuple(engines), degrees, rule, words), []).extend(kinds)
    return tuple(
        Refusal(engines, tuple(kinds), degrees, rule, words)
        for (engines, degrees, rule, words), kinds in merged.items()
    )


def _words(items: list[_Fallen]) -> str:
    """Of the last, which has the largest degree; without the instance's name where memory alone says it."""
    last, memory = items[-1], items[-1].memory
    if last.rule.name == "family":
        families = dict.fromkeys(item.kind.family for item in items)
        return f"engine {last.engine.name} does not run on {', '.join(families)}"
    if last.rule.name == "fit":
        return (
            f"TP {last.tensor_parallel} needs {size(memory.weights)} of weights + {size(memory.kv_cache)} of "
            f"KV cache + {size(memory.overhead)} of overhead, and a core has {size(memory.hbm)}"
        )
    return last.rule.words
