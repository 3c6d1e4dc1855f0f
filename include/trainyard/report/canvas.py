"""Axes and shapes of a plot, as inline SVG: no script, no font, no file besides. Colours come from the page.

Each plot has a title and a description for those who do not see it; arms differ by dash as well as by colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 38
LETTER = 8.5  # pixels that one of a label takes at most, with what has to be free beside it
TINY = 1e-7  # seconds; a logarithm has no place for zero


class Scale(Protocol):
    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1; beyond the ends it stays at them."""

    def ticks(self) -> list[float]:
        """Values worth a label, ascending."""


@dataclass(frozen=True)
class Linear:
    """From `low` to `high`, which is above it."""

    high: float
    low: float = 0.0
    count: int = 4

    def share(self, value: float) -> float:
        return min(1.0, max(0.0, (value - self.low) / ((self.high - self.low) or 1.0)))

    def ticks(self) -> list[float]:
        return [tick for tick in ticks(self.high, self.count, self.low) if tick >= self.low]


@dataclass(frozen=True)
class Log:
    """Both above zero."""

    low: float
    high: float

    def share(self, value: float) -> float:
        if value <= self.low:
            return 0.0
        return min(1.0, math.log(value / self.low) / (math.log(self.high / self.low) or 1.0))

    def ticks(self) -> list[float]:
        """As many round numbers of every power of ten as there is room for."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for factors in (
            (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
            (1, 1.5, 2, 3, 4, 5, 7),
            (1, 2, 3, 5),
            (1, 2, 5),
            (1,),
        ):
            found = [
                factor * 10.0**power
                for power in range(first, last + 1)
                for factor in factors
                if self.low * 0.999 <= factor * 10.0**power <= self.high * 1.001
            ]
            if len(found) <= 6:
                return found
        return found[:: math.ceil(len(found) / 6)]


@dataclass(frozen=True)
class Odds:
    """Shares between 0 and 1, both ends stretched alike: as far from 0.9 to 0.99 as from 0.99 to 0.999."""

    low: float
    high: float
    marks: Sequence[float] = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)

    def share(self, value: float) -> float:
        ends = _logit(self.low), _logit(self.high)
        at = _logit(min(self.high, max(self.low, value)))
        return (at - ends[0]) / ((ends[1] - ends[0]) or 1.0)

    def ticks(self) -> list[float]:
        return [mark for mark in self.marks if self.low <= mark <= self.high]


def ticks(high: float, count: int = 4, low: float = 0.0) -> list[float]:
    """Round numbers from 0 (or from the last below `low`) to at most `high`."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first = math.floor(low / step)
    return [step * number for number in range(first, math.floor(high / step * 1.0001) + 1)]


class Canvas:
    """Collects shapes in data coordinates."""

    def __init__(self, title: str, text: str, across: Scale, up: Scale) -> None:
        self.title, self.text = title, text
        self.across, self.up = across, up
        self.parts: list[Markup] = []

    def x(self, value: float) -> float:
        return round(LEFT + self.across.share(value) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - self.up.share(value) * (HEIGHT - TOP - BOTTOM), 1)

    def axes(self, label: str, say_x: Callable[[float], str], say_y: Callable[[float], str]) -> None:
        """label: what lies across; the caption says what goes up."""
        for tick in self.up.ticks():
            y = self.y(tick)
            self.line(LEFT, y, WIDTH - RIGHT, y, "grid")
            self.words(LEFT - 6, y + 4, say_y(tick), "end")
        free = 0.0  # from here on there is room for a label
        for tick in self.across.ticks():
            x, text = self.x(tick), say_x(tick)
            self.line(x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 4, "grid")
            half = len(text) * LETTER / 2
            inside = min(x, WIDTH - half)  # at the very edge it would be cut off
            if inside - half >= free:
                self.words(round(inside, 1), HEIGHT - BOTTOM + 16, text, "middle")
                free = inside + half
        self.words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, label, "middle", "axis")

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """In pixels."""
        self.add('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>', kind, x1, y1, x2, y2)

    def words(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "tick") -> None:
        """In pixels."""
        self.add('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>', kind, x, y, anchor, text)

    def path(self, kind: str, path: str) -> None:
        self.add('<path class="{}" d="{}"/>', kind, path)

    def add(self, template: str, *values: object) -> None:
        self.parts.append(Markup(template).format(*values))

    def render(self) -> Markup:
        head = Markup('<svg viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>').format(
            WIDTH, HEIGHT, self.title, self.text
        )
        return head + Markup("").join(self.parts) + Markup("</svg>")


def css_class(arm: str) -> str:
    """Arms of other names share a neutral style; the name itself never becomes an attribute."""
    return str(escape(arm)) if arm in ("canary", "baseline") else "other"


def say_time(seconds: float) -> str:
    """For an axis: `0`, `0.2 ms`, `50 ms`, `1.5 s`."""
    if seconds == 0:
        return "0"
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.4g} s"


def say_share(share: float) -> str:
    return f"{share * 100:.3g} %"


def say_number(number: float) -> str:
    return f"{number:.4g}"


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
