"""Kubernetes quantities: "16", "64k", "1Ti", "500m", "1e3". Source: apimachinery's resource.Quantity."""

from __future__ import annotations

import re
from decimal import Decimal

from trainyard.errors import Problem, Refused

_FORM = re.compile(
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<power>[+-]?\d{1,3}))?",
    re.ASCII,
)
_SUFFIXES = {
    **{letter: Decimal(10) ** (3 * power) for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
    "m": Decimal("1e-3"),
    "u": Decimal("1e-6"),
    "n": Decimal("1e-9"),
}


def parse_quantity(value: object) -> Decimal:
    """A quantity as a number. Integers come as JSON numbers too. Raises Refused."""
    found = _FORM.fullmatch(str(value).strip())
    if found is None:
        raise Refused(
            Problem("quantity", value, "not a Kubernetes quantity", 'Write one like "16", "64k" or "1Ti".')
        )
    number = Decimal(found["number"])
    if found["power"] is not None:
        return number.scaleb(int(found["power"]))
    return number * _SUFFIXES[found["suffix"]] if found["suffix"] else number


def whole(value: object) -> int:
    """A quantity of things that cannot be split, rounded down; nothing counts as none."""
    return int(parse_quantity(value)) if value is not None else 0


def written(number: Decimal) -> str:
    """As people write it: without an exponent, without empty decimals."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
