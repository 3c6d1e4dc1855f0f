"""Kubernetes quantities ("500m", "2Ti", "1e3"): parsing, adding, comparing. Values are exact Decimals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

Resources = dict[str, Decimal]
_SUFFIX = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(|[numkMGTPE]|[KMGTPE]i)\Z")


def parse_quantity(text: str | int | float) -> Decimal:
    """Value of a quantity; raises ValueError."""
    found = _FORM.match(str(text).strip())
    if not found:
        raise ValueError(f"quantity {text!r} is not a number with an optional suffix such as m, k, Mi, Gi")
    return Decimal(found.group(1)) * _SUFFIX[found.group(2)]


def parse_resources(given: Mapping[str, str | int] | None) -> Resources:
    return {name: parse_quantity(value) for name, value in (given or {}).items()}


def add_resources(many: Iterable[Mapping[str, Decimal]]) -> Resources:
    total: Resources = {}
    for one in many:
        for name, value in one.items():
            total[name] = total.get(name, Decimal(0)) + value
    return total


def format_quantity(name: str, value: Decimal) -> str:
    """Canonical text: milli CPUs where needed, the largest exact binary suffix for bytes, plain numbers
    otherwise.
    """
    if name == "cpu":
        return str(int(value)) if value == int(value) else f"{int(value * 1000)}m"
    if name in ("memory", "ephemeral-storage"):
        for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
            if value and value % _SUFFIX[suffix] == 0:
                return f"{int(value / _SUFFIX[suffix])}{suffix}"
    return str(int(value)) if value == int(value) else f"{int(value * 1000)}m"


def format_resources(given: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: format_quantity(name, value) for name, value in sorted(given.items())}
