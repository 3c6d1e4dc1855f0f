"""The deadline of a compile, learned from compiles of like models. Pure.

The spec's deadline is the cap. It is hours, because the largest model needs them; a small model that hangs
should not hold a node for as long. A wrong guess costs one try: the next one gets twice the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Fewer good compiles say too little about the slowest in twenty.
LEAST_SAMPLES = 3
FACTOR = 1.5
# Another compiler version may be slower: then the same samples allow for more.
FACTOR_OTHER_COMPILER = 2.0
FLOOR_SECONDS = 600
# A model that is so many times larger or smaller says nothing.
FARTHEST = 8.0


@dataclass(frozen=True)
class Shape:
    """What a compile's time depends on. target: neuronx-cc's; family: model_type of the text part, with the
    quantization where there is one; weight_bytes: of the whole model; tokens: batch x sequence length;
    configuration: the compile cache's key, equal for equal graphs; compiler: its version."""

    engine: str
    target: str
    family: str
    layers: int
    weight_bytes: int
    tensor_parallel: int
    tokens: int
    configuration: str
    compiler: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Sample:
    """A compile that ran without any cache. seconds: of the compiler's command; cut: it was ended by a
    learned deadline after that time, so it takes longer."""

    shape: Shape
    seconds: float
    outcome: Literal["good", "cut"]


@dataclass(frozen=True)
class Deadline:
    """seconds; learned: less than the spec's cap; why: for people."""

    seconds: int
    learned: bool
    why: str


def learn_deadline(
    history: Sequence[Sample], like: Shape, cap_minutes: int, floor_seconds: int = FLOOR_SECONDS
) -> Deadline:
    """The deadline for compiling `like`. history: oldest first; samples of unlike models are passed over.

    Never above the cap; never below the smaller of floor and cap.
    """
    cap = cap_minutes * 60
    near = [(sample, ratio) for sample in history if (ratio := _ratio(sample.shape, like)) is not None]
    good = [(sample, ratio) for sample, ratio in near if sample.outcome == "good"]
    needed = _cut(near, like)
    if len(good) < LEAST_SAMPLES:
        words = f"{len(good)} like compile(s) are known, {LEAST_SAMPLES} are needed"
        return Deadline(cap, False, f"{_minutes(cap)}, the spec's: {words}")
    same = sum(sample.shape.compiler == like.compiler for sample, _ in good)
    factor = FACTOR if same >= LEAST_SAMPLES else FACTOR_OTHER_COMPILER
    slow = p95([sample.seconds * ratio for sample, ratio in good])
    wanted = max(floor_seconds, slow * factor)
    why = f"p95 of {len(good)} like compiles, scaled to this model, is {_minutes(slow)}; x {factor:g}"
    if needed > wanted:
        wanted = needed
        why = f"a compile of its like was cut off after {_minutes(needed / 2)}: twice that"
    elif wanted == floor_seconds:
        why += f", and at least {_minutes(floor_seconds)}"
    seconds = math.ceil(wanted)
    if seconds >= cap:
        return Deadline(cap, False, f"{_minutes(cap)}, the spec's: {why} would be {_minutes(seconds)}")
    return Deadline(seconds, True, f"{_minutes(seconds)}: {why}; the spec allows {_minutes(cap)}")


def samples_of(documents: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Reads the history's documents. One that is not understood (of another version, damaged) is left out."""
    found = []
    for document in documents:
        shape, seconds, outcome = document.get("shape"), document.get("seconds"), document.get("outcome")
        if not isinstance(shape, dict) or outcome not in ("good", "cut"):
            continue
        texts = {name: shape.get(name) for name in _TEXTS}
        numbers = {name: shape.get(name) for name in _NUMBERS}
        if not all(isinstance(value, str) for value in texts.values()):
            continue
        if not all(_is_positive(value) for value in (*numbers.values(), seconds)):
            continue
        found.append(Sample(Shape(**texts, **numbers), float(seconds), outcome))  # type: ignore[arg-type]
    return found


def layers_of(graph: Mapping[str, Any]) -> int:
    """Decoder layers of a config.json; 1 where it does not say."""
    for config in (graph.get("text_config"), graph):
        if isinstance(config, Mapping):
            for name in ("num_hidden_layers", "n_layers", "num_layers", "n_layer"):
                value = config.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
    return 1


def p95(values: Sequence[float]) -> float:
    """The nearest-rank 95th percentile: a value that was seen, not one between two."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(0.95 * len(ordered)) - 1)]


def _ratio(seen: Shape, like: Shape) -> float | None:
    """How many times longer `like` should take than `seen` did; None: they are not alike.

    Compilers unroll layers, so time grows with them, and with what a core holds of each. The larger of the
    two counts; larger shapes add to it, smaller ones are not counted on.
    """
    if (seen.engine, seen.target, seen.family) != (like.engine, like.target, like.family):
        return None
    if seen.configuration == like.configuration:
        return 1.0
    layers = like.layers / seen.layers
    core = (like.weight_bytes / like.tensor_parallel) / (seen.weight_bytes / seen.tensor_parallel)
    ratio = max(layers, core) * max(1.0, math.sqrt(like.tokens / seen.tokens))
    return ratio if 1 / FARTHEST <= ratio <= FARTHEST else None


def _cut(near: Sequence[tuple[Sample, float]], like: Shape) -> float:
    """Twice the longest time after which a compile of its like was cut off, unless one that ended well came
    after it."""
    needed = 0.0
    for sample, ratio in near:
        if sample.outcome == "cut":
            needed = max(needed, 2 * sample.seconds * ratio)
        elif sample.shape.configuration == like.configuration:
            needed = 0.0
    return needed


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e18


_TEXTS = ("engine", "target", "family", "configuration", "compiler")
_NUMBERS = ("layers", "weight_bytes", "tensor_parallel", "tokens")
