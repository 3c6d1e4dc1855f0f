"""The plan for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainyard.errors import Problem
from trainyard.neuron.estimates import Span
from trainyard.neuron.memory import size
from trainyard.neuron.proposals import OF_ENGINE

if TYPE_CHECKING:
    from trainyard.neuron.proposals import Proposal, Refusal
    from trainyard_cli.planning import Answer, Planned

_MOST_CHOICES = 5
_MOST_NAMES = 4
_KEPT, _BROKEN = "kept", "broken"


def show(console: Console, answer: Answer) -> None:
    _head(console, answer)
    if answer.planned:
        _plan(console, answer.planned)
        _memory(console, answer.planned)
        _rules(console, answer.planned)
        if answer.can_run:
            _estimate(console, answer, answer.planned)
    for problem in answer.remote_code:
        console.print()
        _line(console, f"{problem.field}: {problem.rule}. {problem.remedy}.")
    if answer.proposal:
        _proposal(console, answer.proposal)
    _verdict(console, answer)


def show_problems(console: Console, name: str, problems: Iterable[Problem]) -> None:
    for problem in problems:
        _line(console, f"{problem.field}: {problem.rule}. {problem.remedy}")
    _line(console, f"REFUSED: {name} cannot run anywhere.", "bold red")


def _head(console: Console, answer: Answer) -> None:
    facts, spec = answer.facts, answer.asked.spec
    where = {"headers": "the weights' headers", "index": "their index", "config": "the config alone"}
    title = spec.model.repo + (f"@{answer.revision[:12]}" if answer.revision else "")
    weights = (
        f"{facts.model_type}: {facts.parameters / 1e9:.1f} B parameters, {size(facts.weight_bytes)} of "
        f"{facts.quantization or facts.dtype} (known from {where[facts.weights_from]})"
    )
    shape = f"{facts.layers} layers, {facts.heads} heads, {facts.kv_heads} KV heads"
    if facts.experts:
        shape += f", {facts.experts} experts, {facts.experts_per_token} a token"
    if facts.latent:
        shape += ", multi-head latent attention"
    if facts.multimodal:
        shape += ", multimodal"
    _line(console, title, "bold")
    _line(console, f"  {weights}")
    _line(console, f"  {shape}")


def _plan(console: Console, planned: Planned) -> None:
    spec, result, kind = planned.spec, planned.result, planned.kind
    cores = kind.cores(result.lnc)
    nodes, replicas = planned.estimate.nodes, spec.serving.replicas
    versions = planned.engine.versions
    rows = {
        "engine": f"{planned.engine.name} {versions.engine}, SDK {versions.sdk}",
        "image": planned.image,
        "instance": f"{kind.name}: {kind.chips} {kind.chip}, {kind.hbm_gb} GB HBM, {kind.vcpus} vCPU, "
        f"{kind.memory_gib} GiB; NodePool {spec.hardware.nodepool}"
        + ("" if kind.auto_mode else "; not in EKS Auto Mode"),
        "bought": f"{planned.price.words if planned.price else 'no price known'}; {kind.bought}"
        + (", spot in some regions" if kind.spot else ""),
        "disk": _disk(planned),
        "TP": f"{spec.hardware.tensor_parallel} of {cores} logical cores (LNC={result.lnc})",
        "chips": f"{result.chips} of {kind.chips}; {replicas} replica(s) on {nodes} node(s)",
        "shapes": f"batch {spec.compile.batch_size}, {spec.compile.sequence_length} tokens",
        "bundle": f"holds {result.holds}; weights loaded as {result.loaded}",
        "host memory": f"{size(result.host.compiling)} to compile, {size(result.host.serving)} to serve, "
        f"beside the processes (asked: {spec.compile.memory}, {spec.serving.memory})",
    }
    console.print()
    _table(console, ("", ""), rows.items())


def _disk(planned: Planned) -> str:
    kind, weights = planned.kind, planned.result.memory.weights_total
    held = size(2 * weights if planned.result.holds == "weights" else weights)
    if kind.nvme_count:
        return f"{kind.nvme_count} x {kind.nvme_gb} GB NVMe, for {held} of checkpoint and bundle"
    return f"no NVMe: the node's root volume must hold {held} of checkpoint and bundle"


def _memory(console: Console, planned: Planned) -> None:
    memory, tp = planned.result.memory, planned.spec.hardware.tensor_parallel
    parts = {
        "weights": memory.weights,
        "KV cache": memory.kv_cache,
        "overhead": memory.overhead,
        "free": memory.free,
        "HBM": memory.hbm,
    }
    console.print()
    _table(
        console,
        ("memory", "a core", f"{tp} cores", "part"),
        (
            (name, size(value), size(value * tp), f"{value * 100 / memory.hbm:.0f} %")
            for name, value in parts.items()
        ),
        right=(1, 2, 3),
    )


def _rules(console: Console, planned: Planned) -> None:
    console.print()
    rows = []
    for rule in planned.result.rules:
        word = Text(_KEPT, "green") if rule.passed else Text(_BROKEN, "bold red")
        words = rule.words
        if rule.problem:
            words += f". {rule.problem.field} = {rule.problem.value!r}: {rule.problem.remedy}"
        rows.append((_name(rule.name), word, words))
    _table(console, ("rule", "", "why"), rows)


def _estimate(console: Console, answer: Answer, planned: Planned) -> None:
    found = planned.estimate
    console.print()
    _table(
        console,
        ("stage", "minutes", "", "nodes paid", "why"),
        (
            (item.stage, f"{item.minutes.likely:.1f}", _range(item.minutes), str(item.paid), item.why)
            for item in found.stages
        ),
        right=(1, 3),
    )
    console.print()
    minutes, hours, dollars = found.minutes, found.accelerator_hours, found.dollars
    cost = "not known: the price table has no such instance type"
    if dollars:
        cost = f"${dollars.likely:.2f} (${dollars.low:.2f} to ${dollars.high:.2f})"
    rows = {
        "duration": f"{_time(minutes.likely)} ({_time(minutes.low)} to {_time(minutes.high)})",
        "accelerator-hours": f"{hours.likely:.1f} ({_range(hours)}): all chips of nodes that are paid",
        "cost of the release": cost,
        "cost of serving": f"${found.serving_dollars:.2f} an hour" if found.serving_dollars else "not known",
        "prices": f"of {answer.prices.date}: {answer.prices.source}",
        "assumed": "; ".join(found.assumptions),
    }
    _table(console, ("", ""), rows.items())


def _proposal(console: Console, proposal: Proposal) -> None:
    console.print()
    choices = proposal.choices[:_MOST_CHOICES]
    if choices:
        _table(
            console,
            ("keeps every rule", "engine", "TP", "chips", "nodes", "$ an hour", "free of a core"),
            (
                (
                    choice.instance,
                    choice.engine,
                    str(choice.tensor_parallel),
                    str(choice.result.chips),
                    str(choice.nodes),
                    f"{choice.dollars:.2f}" if choice.dollars is not None else "?",
                    size(choice.result.memory.free),
                )
                for choice in choices
            ),
            right=(2, 3, 4, 5, 6),
        )
        if len(proposal.choices) > len(choices):
            _line(console, f"  and {len(proposal.choices) - len(choices)} more, which cost as much or more")
        console.print()
    _table(
        console,
        ("fell out", "engine", "TP", "why"),
        (
            (_kinds(item), "\n".join(item.engines), _degrees(item), f"{_name(item.rule)}: {item.words}")
            for item in proposal.refusals
        ),
    )


def _kinds(item: Refusal) -> str:
    if len(item.instances) > _MOST_NAMES:
        return f"{len(item.instances)} types"
    return "\n".join(item.instances)


def _degrees(item: Refusal) -> str:
    found = item.tensor_parallels
    if item.rule in OF_ENGINE:
        return "any"
    return str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"


def _name(rule: str) -> str:
    return rule.replace("_", " ")


def _verdict(console: Console, answer: Answer) -> None:
    planned = answer.planned
    console.print()
    if answer.can_run and planned:
        if planned.changes:
            _line(console, "Write into the spec:")
            _yaml(console, planned.changes)
        _line(
            console,
            f"CAN RUN: {answer.asked.spec.name} with {planned.engine.name} on {planned.kind.name}, TP "
            f"{planned.spec.hardware.tensor_parallel}.",
            "bold green",
        )
    elif planned:
        count = len(answer.problems)
        _line(console, f"REFUSED: {count} rule{'s are' if count > 1 else ' is'} broken.", "bold red")
    elif answer.remote_code:
        _line(console, "REFUSED: the model wants its own code to run.", "bold red")
    else:
        _line(console, "REFUSED: no combination keeps every rule.", "bold red")


def _yaml(console: Console, changes: Mapping[str, Any]) -> None:
    for line in yaml.safe_dump(dict(changes), sort_keys=False).splitlines():
        _line(console, f"    {line}")


def _table(
    console: Console,
    heads: tuple[str, ...],
    rows: Iterable[tuple[str | Text, ...]],
    right: tuple[int, ...] = (),
) -> None:
    table = Table(box=None, pad_edge=False, show_header=any(heads), header_style="bold")
    for index, head in enumerate(heads):
        last = index == len(heads) - 1
        table.add_column(
            head, justify="right" if index in right else "left", no_wrap=not last, overflow="fold"
        )
    for row in rows:
        # As text: brackets in an image's name or a message are no markup.
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console.print(table)


def _line(console: Console, words: str, style: str = "") -> None:
    console.print(Text(words, style), soft_wrap=True)


def _range(span: Span) -> str:
    return f"{span.low:.1f} to {span.high:.1f}"


def _time(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
