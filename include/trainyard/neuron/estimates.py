"""How long a release takes and what it costs, in honest ranges, with the assumptions named.

Measured once, on another's cluster: Llama 4 Scout (217 GB, 48 layers) at TP 16 on trn2.48xlarge took
5 minutes for the node, 30 s for the image, 60 s for the HLO, 200 s in neuronx-cc, 650 s to lay the weights
out, and 5 minutes to download, shard and load them (awslabs/ai-on-eks). Everything here is scaled from it;
the upper bounds are those that the guides warn of (a compile of up to an hour). The ledger of a cluster in
use knows better.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainyard.neuron.instances import Instance, nodes_for
from trainyard.neuron.memory import size
from trainyard.neuron.models import ModelFacts
from trainyard.neuron.prices import Price
from trainyard.neuron.rule import Preflight
from trainyard.spec import Spec, bytes_of

_SCOUT_BYTES, _SCOUT_LAYERS = 217e9, 48
_TRACE_MINUTES, _LAYOUT_MINUTES, _LOAD_MINUTES = 260 / 60, 650 / 60, 5.0
_IMAGE_MINUTES = 0.5
# Hub to S3, and S3 to a node, in bytes a second: least, likely, most.
_HUB_RATES = (0.1e9, 0.4e9, 1.2e9)


@dataclass(frozen=True)
class Span:
    """Three guesses, in the unit that the name of its field says."""

    low: float
    likely: float
    high: float

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, factor: float) -> Span:
        return Span(self.low * factor, self.likely * factor, self.high * factor)


@dataclass(frozen=True)
class StageTime:
    """paid: nodes with chips that are paid for meanwhile."""

    stage: str
    minutes: Span
    paid: int
    why: str


@dataclass(frozen=True)
class Estimate:
    """Of one release that compiles; one whose bundle is there skips the compile and its node.

    accelerator_hours: of all chips of the nodes that are paid for, used or not. dollars: None where the price
    table does not say. serving_dollars: an hour of serving afterwards.
    """

    stages: tuple[StageTime, ...]
    minutes: Span
    accelerator_hours: Span
    dollars: Span | None
    nodes: int
    serving_dollars: float | None
    assumptions: tuple[str, ...]


def estimate(
    facts: ModelFacts, spec: Spec, result: Preflight, kind: Instance, price: Price | None
) -> Estimate:
    """Of a spec as the preflight has answered it. No stable release to compare with is assumed where none is
    known: a baseline doubles the load test."""
    nodes = nodes_for(
        kind, spec.serving.replicas, result.chips, bytes_of(spec.serving.memory), spec.serving.cpu
    )
    stages = tuple(_stages(facts, spec, result, nodes))
    minutes = _sum(stage.minutes for stage in stages)
    node_hours = _sum(stage.minutes * (stage.paid / 60) for stage in stages)
    return Estimate(
        stages=stages,
        minutes=minutes,
        accelerator_hours=node_hours * kind.chips,
        dollars=node_hours * price.dollars if price else None,
        nodes=nodes,
        serving_dollars=price.dollars * nodes if price else None,
        assumptions=_assumptions(kind),
    )


def _stages(facts: ModelFacts, spec: Spec, result: Preflight, nodes: int) -> Iterable[StageTime]:
    bulk = facts.weight_bytes
    with_weights = result.holds == "weights"
    yield StageTime(
        "fetch",
        _rate(bulk),
        0,
        f"{size(bulk)} from the Hub to S3, once a revision; 0 where it is mirrored already",
    )
    yield StageTime(
        "compile node", Span(3, 5, 8), 1, "Karpenter buys it, it boots, the device plugin registers"
    )
    yield StageTime("compile", _compile(facts, spec, result), 1, _compile_words(facts, with_weights))
    yield StageTime(
        "publish",
        Span(0.2, 0.5, 2) if with_weights else Span(0.1, 0.2, 0.5),
        0,
        "the manifest over what the compile pod has staged",
    )
    yield StageTime(
        "server node",
        Span(0, 0 if nodes == 1 else 5, 8),
        nodes,
        "the compile's node is still there for one server"
        if nodes == 1
        else f"{nodes} nodes, of which the compile's is there",
    )
    yield StageTime(
        "server start", _start(facts, spec, with_weights), nodes, _start_words(bulk, with_weights)
    )
    load = spec.rollout.load.seconds / 60
    yield StageTime(
        "warm up and load test",
        Span(0.5 + load, 1.5 + 2 * load, 4 + 3 * load),
        nodes,
        "the baseline is measured too",
    )
    watched = sum(step.observe_seconds for step in spec.rollout.steps) / 60
    yield StageTime(
        "rollout",
        Span(watched, watched * 1.1, watched * (1 + spec.rollout.extensions) + 1),
        nodes,
        f"{len(spec.rollout.steps)} steps, each prolonged up to {spec.rollout.extensions} times when it "
        "measures too little",
    )
    grace = spec.serving.grace_seconds / 60
    yield StageTime("promote and drain", Span(0.5, 1, 1 + grace), nodes, "streams in flight end first")


def _compile(facts: ModelFacts, spec: Spec, result: Preflight) -> Span:
    trace = _TRACE_MINUTES * max(0.5, facts.layers / _SCOUT_LAYERS)
    laid = _LAYOUT_MINUTES * result.memory.weights_total / _SCOUT_BYTES if result.holds == "weights" else 0.0
    likely = _IMAGE_MINUTES + trace + laid
    return Span(likely / 2, likely, max(likely, min(4 * likely, spec.compile.deadline_minutes)))


def _compile_words(facts: ModelFacts, with_weights: bool) -> str:
    words = f"tracing and neuronx-cc over {facts.layers} layers"
    return f"{words}, and laying {size(facts.weight_bytes)} out" if with_weights else words


def _start(facts: ModelFacts, spec: Spec, with_weights: bool) -> Span:
    # Shards that are there already only have to be read: about half of what Scout took to download and shard.
    load = _LOAD_MINUTES * facts.weight_bytes / _SCOUT_BYTES * (0.5 if with_weights else 1)
    likely = 1 + _IMAGE_MINUTES + load
    return Span(likely / 2, likely, max(likely, min(3 * likely, spec.serving.ready_deadline_minutes)))


def _start_words(bulk: int, with_weights: bool) -> str:
    return (
        f"{size(bulk)} of shards from S3" if with_weights else f"{size(bulk)} from S3, sharded by each server"
    )


def _rate(count: int) -> Span:
    slow, usual, fast = _HUB_RATES
    return Span(count / fast / 60, count / usual / 60, count / slow / 60)


def _assumptions(kind: Instance) -> tuple[str, ...]:
    return (
        "scaled from one measured deployment (Llama 4 Scout, TP 16, trn2.48xlarge)",
        "the Hub gives {1:.1f} GB/s ({0:.1f} to {2:.1f})".format(*(rate / 1e9 for rate in _HUB_RATES)),
        f"{kind.name} is there when asked for: no waiting for capacity",
        "whole nodes are paid for; a compile's node is used by the first server",
        "no cache hit: a published bundle skips compile and its node",
    )


def _sum(spans: Iterable[Span]) -> Span:
    return sum(spans, Span(0.0, 0.0, 0.0))
