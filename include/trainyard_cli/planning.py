"""`trainyard plan`: can this spec run, where, for how long and for how much? Costs a second and no node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from trainyard.errors import Problem, Refused, TrainyardError
from trainyard.neuron.asking import ask_of
from trainyard.neuron.engines import Engine, engine, engines
from trainyard.neuron.estimates import Estimate, estimate
from trainyard.neuron.host_rules import gibibytes
from trainyard.neuron.instances import Instance, instance
from trainyard.neuron.models import ModelFacts
from trainyard.neuron.prices import Price, Prices
from trainyard.neuron.proposals import Choice, Proposal, propose
from trainyard.neuron.rule import Ask, Preflight
from trainyard.neuron.rules import preflight
from trainyard.settings import Settings
from trainyard.spec import Spec, bytes_of, merge, parse_spec
from trainyard_cli.plan_question import (
    Asked,
    BadQuestion,
    Options,
    facts_from,
    facts_from_source,
    read_prices,
    read_question,
)

CAN_RUN, REFUSED, BAD_QUESTION = 0, 1, 2


@dataclass(frozen=True)
class Planned:
    """One engine on one instance type: the spec complete, what the rules say, what it costs.

    changes: what the proposal wrote into the spec; {} where the spec left nothing open.
    """

    spec: Spec
    engine: Engine
    kind: Instance
    image: str
    result: Preflight
    estimate: Estimate
    price: Price | None
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """planned is None where a proposal found nothing. proposal is None where nothing was open."""

    asked: Asked
    facts: ModelFacts
    revision: str | None
    prices: Prices
    planned: Planned | None
    proposal: Proposal | None
    remote_code: tuple[Problem, ...] = ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        return (*self.remote_code, *(self.planned.result.problems if self.planned else ()))

    @property
    def can_run(self) -> bool:
        return self.planned is not None and not self.problems


def run(
    name: str,
    options: Options,
    console: Console,
    *,
    config: Path | None = None,
    prices: Path | None = None,
    as_json: bool = False,
) -> int:
    """Prints the answer; 0: it can run, 1: it is refused, 2: the question is wrong or the Hub is silent."""
    from trainyard_cli import plan_json, plan_text

    try:
        answer = plan(name, options, config=config, prices=prices)
    except Refused as error:
        if as_json:
            plan_json.show_problems(console, error.problems)
        else:
            plan_text.show_problems(console, name, error.problems)
        return REFUSED
    except (BadQuestion, TrainyardError) as error:
        if as_json:
            plan_json.show_error(console, str(error))
        else:
            console.print(str(error), style="red", soft_wrap=True, markup=False, highlight=False)
        return BAD_QUESTION
    if as_json:
        plan_json.show(console, answer)
    else:
        plan_text.show(console, answer)
    return CAN_RUN if answer.can_run else REFUSED


def plan(name: str, options: Options, *, config: Path | None = None, prices: Path | None = None) -> Answer:
    """Raises BadQuestion, Refused (the model itself), and what the Hub raises."""
    settings = Settings()
    asked = read_question(name, options, settings.releases_dir)
    table = read_prices(prices)
    _check_names(asked)
    code: tuple[Problem, ...] = ()
    revision: str | None = None
    if config is not None:
        facts, code = facts_from(config)
    else:
        facts, revision = facts_from_source(asked.spec, settings)
    if not asked.open:
        planned = _planned(asked.spec, facts, table, settings.region, {})
        return Answer(asked, facts, revision, table, planned, None, code)
    if code:
        return Answer(asked, facts, revision, table, None, None, code)
    proposal = _proposal(asked, facts, table)
    best, chosen = proposal.best, None
    if best is not None:
        changes = _changes(asked, best)
        spec = parse_spec(merge(asked.document, changes), name)
        chosen = _planned(spec, facts, table, settings.region, changes)
    return Answer(asked, facts, revision, table, chosen, proposal)


def _check_names(asked: Asked) -> None:
    """An engine or instance type that nobody knows is a wrong question, not a model that is refused."""
    try:
        if "engine" not in asked.open:
            engine(asked.spec.engine)
        if "hardware.instance_type" not in asked.open:
            instance(asked.spec.hardware.instance_type)
    except Refused as error:
        raise BadQuestion(str(error)) from None


def _planned(
    spec: Spec, facts: ModelFacts, prices: Prices, region: str, changes: Mapping[str, Any]
) -> Planned:
    chosen, kind = engine(spec.engine), instance(spec.hardware.instance_type)
    result = preflight(facts, chosen, kind, ask_of(spec))
    price = prices.of(kind.name)
    return Planned(
        spec=spec,
        engine=chosen,
        kind=kind,
        image=spec.image or chosen.image(region),
        result=result,
        estimate=estimate(facts, spec, result, kind, price),
        price=price,
        changes=changes,
    )


def _proposal(asked: Asked, facts: ModelFacts, prices: Prices) -> Proposal:
    spec = asked.spec
    given = {"engine", "hardware.instance_type", "hardware.tensor_parallel"} - asked.open
    return propose(
        facts,
        _open_ask(asked),
        engines(),
        prices,
        engine=spec.engine if "engine" in given else None,
        instance=spec.hardware.instance_type if "hardware.instance_type" in given else None,
        tensor_parallel=spec.hardware.tensor_parallel if "hardware.tensor_parallel" in given else None,
        replicas=spec.serving.replicas,
    )


def _open_ask(asked: Asked) -> Ask:
    """Memory and CPUs that the spec does not name follow the proposal, not the other way round."""
    ask = ask_of(asked.spec)
    if not asked.has("hardware.nodepool"):
        ask = replace(ask, nodepool="")
    if not asked.has("compile.memory"):
        ask = replace(ask, compile_memory_bytes=None)
    if not asked.has("serving.memory"):
        ask = replace(ask, serve_memory_bytes=None)
    if not asked.has("compile.cpu"):
        ask = replace(ask, compile_cpus=0)
    if not asked.has("serving.cpu"):
        ask = replace(ask, serve_cpus=0)
    return ask


def _changes(asked: Asked, best: Choice) -> dict[str, Any]:
    """What the spec has to say so that a release of it is what was proposed."""
    kind, spec = instance(best.instance), asked.spec
    changes: dict[str, Any] = {}
    if "engine" in asked.open:
        changes["engine"] = best.engine
    hardware: dict[str, Any] = {}
    if "hardware.instance_type" in asked.open:
        hardware["instance_type"] = kind.name
    if not asked.has("hardware.nodepool") and (hardware or spec.hardware.nodepool != kind.nodepool):
        hardware["nodepool"] = kind.nodepool
    if "hardware.tensor_parallel" in asked.open:
        hardware["tensor_parallel"] = best.tensor_parallel
    if hardware:
        changes["hardware"] = hardware
    for part, memory, cpu, needs in (
        ("compile", spec.compile.memory, spec.compile.cpu, best.result.host.compiling),
        ("serving", spec.serving.memory, spec.serving.cpu, best.result.host.serving),
    ):
        wanted: dict[str, Any] = {}
        if not asked.has(f"{part}.memory") and not needs <= bytes_of(memory) <= kind.usable_memory_bytes:
            # A tenth more than the weights for the process itself, where the node has it.
            gigabytes = min(gibibytes(int(needs * 1.1)) or 8, kind.usable_memory_bytes >> 30)
            wanted["memory"] = f"{max(gigabytes, gibibytes(needs))}Gi"
        if not asked.has(f"{part}.cpu") and cpu > kind.usable_cpus:
            wanted["cpu"] = kind.usable_cpus
        if wanted:
            changes[part] = wanted
    return changes


__all__ = ["Answer", "Options", "Planned", "plan", "run"]
