"""Prometheus' text format, as far as a server's `/metrics` uses it."""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r"(?:\{(?P<labels>.*)\})?"
    r"[ \t]+(?P<value>\S+)"
    r"(?:[ \t]+-?\d+)?[ \t]*"  # a timestamp may follow
)
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"\s*(?:,\s*|$)')
ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True)
class Point:
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def parse_metrics(text: str) -> list[Point]:
    """Every sample of a scrape. Raises `ValueError` with the number of the line that is none."""
    points = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise ValueError(f"line {number} is not a metric: {line[:80]!r}")
        try:
            value = float(match["value"])  # takes +Inf, -Inf and NaN as Prometheus writes them
        except ValueError:
            raise ValueError(f"line {number} has no number: {line[:80]!r}") from None
        points.append(Point(match["name"], _labels(match["labels"] or "", number), value))
    return points


def _labels(text: str, number: int) -> tuple[tuple[str, str], ...]:
    labels, at = [], 0
    while at < len(text):
        match = LABEL.match(text, at)
        if not match:
            raise ValueError(f"line {number} has malformed labels: {text[:80]!r}")
        value = re.sub(r'\\[n"\\]', lambda escape: ESCAPES[escape[0]], match[2])
        labels.append((match[1], value))
        at = match.end()
    return tuple(labels)
