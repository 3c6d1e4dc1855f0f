"""What requests look like beside their number: lengths, shared prefixes, conversations, pictures."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from trainyard.bench.checking import Number, problems_of
from trainyard.errors import Problem, Refused

MOST_TOKENS = 1_048_576
LONGEST_THINKING = 10.0  # times the mean


class Shape:
    """A part of a workload, read from a JSON object."""

    RULES: ClassVar[Mapping[str, Number]]

    @classmethod
    def problems(cls, where: str, document: Any) -> list[Problem]:
        return problems_of(where, document, cls.RULES)


@dataclass(frozen=True, kw_only=True)
class Lengths(Shape):
    """Tokens, log-normal: half are below `median`; sigma is the spread of the logarithm. What would lie
    outside of `min` and `max` becomes the nearer of them, so that the median stays."""

    median: int
    sigma: float
    max: int
    min: int = 1

    RULES = {
        "median": Number(1, MOST_TOKENS),
        "sigma": Number(0, 5, whole=False),
        "max": Number(1, MOST_TOKENS),
        "min": Number(1, MOST_TOKENS, required=False),
    }

    @classmethod
    def problems(cls, where: str, document: Any) -> list[Problem]:
        found = super().problems(where, document)
        if not found and not document.get("min", 1) <= document["median"] <= document["max"]:
            remedy = "min <= median <= max"
            found.append(Problem(f"{where}.median", document["median"], "is not within min and max", remedy))
        return found

    def sample(self, seed: object) -> int:
        chance = random.Random(f"lengths/{seed}")
        wanted = round(self.median * math.exp(self.sigma * chance.gauss()))
        return max(self.min, min(self.max, wanted))


@dataclass(frozen=True, kw_only=True)
class Prefix(Shape):
    """Each conversation begins with one of `groups` texts of `tokens` tokens, before its own words."""

    groups: int
    tokens: int

    RULES = {"groups": Number(1, 100_000), "tokens": Number(1, MOST_TOKENS)}

    def group(self, seed: object) -> int:
        return random.Random(f"prefix/{seed}").randrange(self.groups)


@dataclass(frozen=True, kw_only=True)
class Conversation(Shape):
    """`turns` questions, each with all that was said before it. think_seconds: mean time that a user takes to
    ask on, exponential, at most ten times as long."""

    turns: int
    think_seconds: float = 0.0

    RULES = {"turns": Number(2, 100), "think_seconds": Number(0, 600, whole=False, required=False)}

    def think(self, seed: object) -> float:
        if not self.think_seconds:
            return 0.0
        drawn = random.Random(f"think/{seed}").expovariate(1 / self.think_seconds)
        return min(drawn, LONGEST_THINKING * self.think_seconds)


@dataclass(frozen=True, kw_only=True)
class Images(Shape):
    """Pictures beside the first words of a conversation, pixels wide and high."""

    width: int
    height: int
    count: int = 1

    RULES = {
        "width": Number(16, 4096),
        "height": Number(16, 4096),
        "count": Number(1, 16, required=False),
    }


# The fields of a workload that hold one.
SHAPES: Mapping[str, type[Shape]] = {
    "prompt_lengths": Lengths,
    "output_lengths": Lengths,
    "prefix": Prefix,
    "conversation": Conversation,
    "images": Images,
}


def read_shapes(document: Mapping[str, Any]) -> dict[str, Shape]:
    """Those fields of a workload's document. Raises Refused with every broken rule."""
    given = {key: document[key] for key in SHAPES if document.get(key) is not None}
    problems = [
        problem for key, value in given.items() for problem in SHAPES[key].problems(f"workload.{key}", value)
    ]
    if problems:
        raise Refused(problems)
    return {key: SHAPES[key](**value) for key, value in given.items()}
