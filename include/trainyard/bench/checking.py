"""Parts of a workload as they are written in JSON, checked field by field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from trainyard.errors import Problem


@dataclass(frozen=True)
class Number:
    """What a field may hold: from `low` to `high`, whole or not. required: there is no default."""

    low: float
    high: float
    whole: bool = True
    required: bool = True

    def takes(self, value: object) -> bool:
        kinds = int if self.whole else (int, float)
        return is_number(value) and isinstance(value, kinds) and self.low <= value <= self.high

    @property
    def words(self) -> str:
        return f"must be a {'whole ' if self.whole else ''}number from {self.low:.12g} to {self.high:.12g}"


def is_number(value: object) -> TypeGuard[int | float]:
    """A finite one, and no boolean. JSON can say whole numbers that no float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def problems_of(where: str, document: object, rules: Mapping[str, Number]) -> list[Problem]:
    """Every broken rule of an object whose fields are all numbers."""
    known = f"Known: {', '.join(rules)}"
    if not isinstance(document, Mapping):
        return [Problem(where, shown(document), "is no object", known)]
    found = [
        Problem(f"{where}.{key}", shown(document[key]), "is not a field of it", known)
        for key in document
        if key not in rules
    ]
    for key, rule in rules.items():
        if key in document:
            if not rule.takes(document[key]):
                found.append(
                    Problem(f"{where}.{key}", shown(document[key]), rule.words, "Correct it, or leave it out")
                )
        elif rule.required:
            found.append(Problem(f"{where}.{key}", None, "is missing", f"Give it: it {rule.words}"))
    return found


def shown(value: Any) -> object:
    """As a message can hold it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Sequence | Mapping) and not isinstance(value, str):
        return f"{type(value).__name__} of {len(value)}"
    return str(value)[:80]
