"""Plots as inline SVG: no script, no font, no file besides. Colours come from the page's style sheet.

Each plot has a title and a description for those who do not see it; arms differ by dash as well as by colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from trainyard.bench.samples import Sample
from trainyard.bench.summary import quantile, values

WIDTH, HEIGHT = 420, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 36
POINTS = 160  # of a curve; more than pixels can show
MARKS = 500  # of a scatter plot, an arm


def ticks(high: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to at most `high`."""
    if not high > 0:
        return [0.0]
    raw = high / count
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    return [step * number for number in range(math.floor(high / step * 1.0001) + 1)]


class Canvas:
    """Collects shapes in data coordinates, x from 0 to `width`, y from 0 to `height`."""

    def __init__(self, title: str, text: str, width: float, height: float) -> None:
        self.title, self.text = title, text
        self.width, self.height = width or 1.0, height or 1.0
        self.parts: list[Markup] = []

    def x(self, value: float) -> float:
        share = min(1.0, max(0.0, value / self.width))
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = min(1.0, max(0.0, value / self.height))
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def axes(self, x_label: str, x_unit: float, y_format: str, y_unit: float) -> None:
        """x_unit, y_unit: how many data units one shown unit has (0.001 shows seconds as milliseconds)."""
        for tick in ticks(self.height / y_unit):
            y = self.y(tick * y_unit)
            self.add('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', LEFT, WIDTH - RIGHT, y, y)
            label = y_format.format(tick)
            self.add('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>', LEFT - 5, y + 4, label)
        for tick in ticks(self.width / x_unit, 5):
            x = self.x(tick * x_unit)
            self.add(
                '<text class="tick" x="{}" y="{}" text-anchor="middle">{:g}</text>',
                x,
                HEIGHT - BOTTOM + 15,
                tick,
            )
        self.add(
            '<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>',
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_label,
        )  # fmt: skip

    def add(self, template: str, *values: object) -> None:
        self.parts.append(Markup(template).format(*values))

    def render(self) -> Markup:
        head = Markup('<svg viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>').format(
            WIDTH, HEIGHT, self.title, self.text
        )
        return head + Markup("").join(self.parts) + Markup("</svg>")


def ecdf(metric: str, samples: Sequence[Sample], *, limit: float | None = None) -> Markup | None:
    """Share of requests (or token gaps) at least as fast, an arm a curve. limit: the SLO in seconds."""
    arms = {name: sorted(values(own, metric)) for name, own in by_arm(samples).items()}
    arms = {name: numbers for name, numbers in arms.items() if numbers}
    if not arms:
        return None
    widest = max(quantile(numbers, 0.99) for numbers in arms.values()) * 1.1 or 0.001
    if limit is not None and widest / 3 < limit < widest * 1.6:
        widest = max(widest, limit * 1.08)  # worth showing, and the curves still fill the plot
    told = "; ".join(
        f"{name}: median {quantile(numbers, 0.5) * 1000:.3g} ms, p95 {quantile(numbers, 0.95) * 1000:.3g} ms"
        for name, numbers in arms.items()
    )
    canvas = Canvas(f"Distribution of {metric}", told, widest, 1.0)
    canvas.axes(f"{metric}, ms", 0.001, "{:.0f} %", 0.01)
    if limit is not None and limit <= widest:
        x = canvas.x(limit)
        canvas.add('<line class="limit" x1="{}" x2="{}" y1="{}" y2="{}"/>', x, x, TOP, HEIGHT - BOTTOM)
        canvas.add(
            '<text class="tick" x="{}" y="{}" text-anchor="end">SLO p95</text>', x - 4, HEIGHT - BOTTOM - 6
        )
    for name, numbers in arms.items():
        canvas.add('<path class="curve {}" d="{}"/>', css_class(name), _steps(canvas, numbers))
    return canvas.render()


def _steps(canvas: Canvas, ordered: Sequence[float]) -> str:
    count = len(ordered)
    ranks = sorted({math.ceil(count * step / POINTS) for step in range(1, POINTS + 1)} | {1, count})
    path = [f"M{canvas.x(0)} {canvas.y(0)}"]
    for rank in ranks:
        if ordered[rank - 1] > canvas.width:
            break
        path.append(f"H{canvas.x(ordered[rank - 1])}V{canvas.y(rank / count)}")
    return "".join(path)


def latencies_over_time(samples: Sequence[Sample]) -> Markup | None:
    """Every request: when it started, how long it took; failures as crosses on the base line."""
    if not samples:
        return None
    runs: dict[int, float] = {}
    for sample in samples:  # each run has a clock of its own
        runs[sample.run] = min(runs.get(sample.run, math.inf), sample.started)
    good = sorted(sample.e2e for sample in samples if sample.ok and sample.e2e is not None)
    tallest = quantile(good, 0.99) * 1.15 if good else 1.0
    width = max(sample.started - runs[sample.run] for sample in samples)
    failed = sum(not sample.ok for sample in samples)
    canvas = Canvas(
        "Requests over time", f"{len(samples)} requests, {failed} without success", width, tallest
    )
    canvas.axes("seconds since the start; height: end-to-end, s", 1.0, "{:g}", 1.0)
    for name, own in by_arm(samples).items():
        kind = css_class(name)
        for sample in own[:: max(1, len(own) // MARKS)]:
            x = canvas.x(sample.started - runs[sample.run])
            if sample.ok and sample.e2e is not None:
                canvas.add('<circle class="dot {}" cx="{}" cy="{}" r="2.6"/>', kind, x, canvas.y(sample.e2e))
        for sample in [sample for sample in own if not sample.ok][:MARKS]:
            x, y = canvas.x(sample.started - runs[sample.run]), canvas.y(0)
            cross = f"M{x - 3.5} {y - 3.5}l7 7m0 -7l-7 7"
            canvas.add('<path class="cross {}" d="{}"><title>{}</title></path>', kind, cross, sample.error)
    return canvas.render()


def weight_steps(points: Sequence[tuple[float, float]], end: float) -> Markup | None:
    """Percent of the traffic on the canary. points: (seconds since the epoch, percent), ascending."""
    if not points:
        return None
    begin = points[0][0]
    span = max(end - begin, points[-1][0] - begin, 1.0)
    told = ", ".join(f"{percent:g} %" for _, percent in points)
    canvas = Canvas("Weight of the canary over time", told, span, 100.0)
    unit, name = (60.0, "minutes") if span > 180 else (1.0, "seconds")
    canvas.axes(f"{name} since the first shift", unit, "{:.0f} %", 1.0)
    path = [f"M{canvas.x(0)} {canvas.y(points[0][1])}"]
    path += [f"H{canvas.x(at - begin)}V{canvas.y(percent)}" for at, percent in points[1:]]
    path.append(f"H{canvas.x(span)}")
    canvas.add('<path class="curve canary" d="{}"/>', "".join(path))
    return canvas.render()


def by_arm(samples: Sequence[Sample]) -> Mapping[str, list[Sample]]:
    """The baseline first, so that the canary is drawn over it."""
    arms: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: (sample.arm != "baseline", sample.arm)):
        arms.setdefault(sample.arm, []).append(sample)
    return arms


def css_class(arm: str) -> str:
    """Arms of other names share a neutral style; the name itself never becomes an attribute."""
    return str(escape(arm)) if arm in ("canary", "baseline") else "other"
