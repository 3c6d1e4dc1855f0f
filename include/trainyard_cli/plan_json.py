"""The plan for machines. docs/preflight.md has the schema: fields are added to it, never changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from trainyard.errors import Problem
from trainyard.neuron.estimates import Span
from trainyard.neuron.rule import Rule

if TYPE_CHECKING:
    from trainyard.neuron.prices import Prices
    from trainyard.neuron.proposals import Choice, Proposal
    from trainyard_cli.planning import Answer, Planned

SCHEMA = 1


def show(console: Console, answer: Answer) -> None:
    _print(console, document(answer))


def show_problems(console: Console, problems: Iterable[Problem]) -> None:
    """The model itself cannot be planned: remote code, a config that says nothing."""
    _print(console, {"schema": SCHEMA, "can_run": False, "problems": [_problem(item) for item in problems]})


def show_error(console: Console, words: str) -> None:
    _print(console, {"schema": SCHEMA, "can_run": None, "error": words})


def document(answer: Answer) -> dict[str, Any]:
    planned, facts = answer.planned, answer.facts
    model = {key: value for key, value in asdict(facts).items() if key not in ("kept_parameters",)}
    model["kv_bytes_per_token"] = facts.kv_bytes_per_token
    return {
        "schema": SCHEMA,
        "can_run": answer.can_run,
        "name": answer.asked.spec.name,
        "repo": answer.asked.spec.model.repo,
        "revision": answer.revision,
        "open": sorted(answer.asked.open),
        "model": model,
        "plan": _plan(planned) if planned else None,
        "rules": [_rule(rule) for rule in planned.result.rules] if planned else [],
        "problems": [_problem(item) for item in answer.problems],
        "estimate": _estimate(planned) if planned else None,
        "prices": _prices(answer.prices, planned),
        "proposal": _proposal(answer.proposal) if answer.proposal else None,
    }


def _plan(planned: Planned) -> dict[str, Any]:
    spec, result = planned.spec, planned.result
    return {
        "engine": planned.engine.name,
        "engine_version": planned.engine.versions.engine,
        "image": planned.image,
        "instance_type": planned.kind.name,
        "instance": {**asdict(planned.kind), "hbm_gb": planned.kind.hbm_gb},
        "nodepool": spec.hardware.nodepool,
        "target": planned.kind.target,
        "tensor_parallel": spec.hardware.tensor_parallel,
        "lnc": result.lnc,
        "batch_size": spec.compile.batch_size,
        "sequence_length": spec.compile.sequence_length,
        "chips": result.chips,
        "chips_of_instance": planned.kind.chips,
        "replicas": spec.serving.replicas,
        "nodes": planned.estimate.nodes,
        "holds": result.holds,
        "loaded": result.loaded,
        "memory_of_a_core": result.memory.as_dict(),
        "host_memory": asdict(result.host),
        "changes": dict(planned.changes),
    }


def _estimate(planned: Planned) -> dict[str, Any]:
    found = planned.estimate
    return {
        "minutes": _span(found.minutes),
        "accelerator_hours": _span(found.accelerator_hours),
        "dollars": _span(found.dollars) if found.dollars else None,
        "serving_dollars_an_hour": found.serving_dollars,
        "stages": [
            {
                "stage": item.stage,
                "minutes": _span(item.minutes),
                "nodes_paid": item.paid,
                "why": item.why,
            }
            for item in found.stages
        ],
        "assumptions": list(found.assumptions),
    }


def _prices(prices: Prices, planned: Planned | None) -> dict[str, Any]:
    price = planned.price if planned else None
    return {"date": prices.date, "source": prices.source, "used": asdict(price) if price else None}


def _proposal(proposal: Proposal) -> dict[str, Any]:
    return {
        "choices": [_choice(choice) for choice in proposal.choices],
        "refusals": [
            {
                "engines": list(item.engines),
                "instance_types": list(item.instances),
                "tensor_parallels": list(item.tensor_parallels),
                "rule": item.rule,
                "words": item.words,
            }
            for item in proposal.refusals
        ],
    }


def _choice(choice: Choice) -> dict[str, Any]:
    return {
        "engine": choice.engine,
        "instance_type": choice.instance,
        "tensor_parallel": choice.tensor_parallel,
        "chips": choice.result.chips,
        "nodes": choice.nodes,
        "dollars_an_hour": choice.dollars,
        "free_of_a_core": choice.result.memory.free,
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {"name": rule.name, "passed": rule.passed, "words": rule.words}


def _problem(problem: Problem) -> dict[str, Any]:
    value = problem.value if isinstance(problem.value, str | int | float | None) else str(problem.value)
    return {"field": problem.field, "value": value, "rule": problem.rule, "remedy": problem.remedy}


def _span(span: Span) -> dict[str, float]:
    return {key: round(value, 2) for key, value in asdict(span).items()}


def _print(console: Console, found: dict[str, Any]) -> None:
    # Not through the markup, which would read [1, 2] as a style.
    console.file.write(json.dumps(found, indent=2) + "\n")
