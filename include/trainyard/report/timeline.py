"""What happened when: every request of a run, its failures, and the weights of a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from trainyard.bench.samples import Sample
from trainyard.bench.summary import quantile
from trainyard.report import curves
from trainyard.report.canvas import (
    BOTTOM,
    HEIGHT,
    LEFT,
    TINY,
    TOP,
    Canvas,
    Linear,
    Log,
    css_class,
    say_number,
    say_time,
)

MARKS = 400  # dots of an arm; the slowest are among them
SLOWEST = 60
CROSSES = 300
NAME = 8  # characters that fit beside the strip
ROOM = 0.04  # of the height, between the strip and the first label
STRIP = 0.14  # of the height, for failures
TIMELINES = {
    "ttft": ("Time to first token over the run", "ttft_from_intended"),
    "e2e": ("End to end over the run", "e2e_from_intended"),
}


def over_time(metric: str, samples: Sequence[Sample]) -> Markup | None:
    """Every request: when it was sent, how long it took from when it was due (logarithmic), and a line of
    medians; what failed is a cross in the strip below, what was cut off a ring there."""
    if not samples:
        return None
    title, attribute = TIMELINES[metric]
    shift, length, borders = curves.offsets(samples)
    taken = {
        id(sample): max(TINY, value)
        for sample in samples
        for value in [getattr(sample, attribute)]
        if sample.ok and value is not None
    }
    ordered = sorted(taken.values()) or [0.1, 1.0]
    low, high = ordered[0] * 0.8, max(ordered[-1] * 1.25, ordered[0] * 2)
    low *= (low / high) ** (STRIP / (1 - STRIP))  # makes room below for the strip
    failed = sum(not sample.ok for sample in samples)
    told = f"{len(samples)} requests, {failed} without success; p95 {say_time(quantile(ordered, 0.95))}"
    canvas = Canvas(title, told, Linear(max(length, 0.001), count=6), _Above(low, high))
    canvas.axes("seconds since the start", say_number, say_time)
    for border in borders:
        canvas.line(canvas.x(border), TOP, canvas.x(border), HEIGHT - BOTTOM, "grid")
    arms = curves.by_arm(samples)
    for name, own in arms.items():
        for sample in _drawn([sample for sample in own if id(sample) in taken], taken):
            canvas.add(
                '<circle class="dot {}" cx="{}" cy="{}" r="2"/>',
                css_class(name), canvas.x(sample.started + shift[sample.run]), canvas.y(taken[id(sample)]),
            )  # fmt: skip
    for name, own in arms.items():
        points = [
            f"{canvas.x(window.at)} {canvas.y(window.median)}"
            for window in curves.windows(own, attribute)
            if window.median
        ]
        if len(points) > 1:
            canvas.path(f"curve {css_class(name)}", "M" + "L".join(points))
    _failures(canvas, arms, shift)
    return canvas.render()


class _Above(Log):
    """The labels of a logarithmic axis that ends above the strip."""

    def ticks(self) -> list[float]:
        return [tick for tick in super().ticks() if self.share(tick) > STRIP + ROOM]


def _drawn(samples: Sequence[Sample], taken: dict[int, float]) -> list[Sample]:
    """Every nth, and the slowest."""
    slowest = sorted(samples, key=lambda sample: -taken[id(sample)])[:SLOWEST]
    return [*samples[:: max(1, -(-len(samples) // MARKS))], *slowest]


def _failures(canvas: Canvas, arms: Mapping[str, Sequence[Sample]], shift: Mapping[int, float]) -> None:
    bottom, height = HEIGHT - BOTTOM, (HEIGHT - TOP - BOTTOM) * STRIP
    for number, (name, own) in enumerate(arms.items()):
        y = round(bottom - height * (number + 0.6) / (len(arms) + 0.2), 1)
        bad = [sample for sample in own if not sample.ok]
        if bad:
            canvas.words(LEFT - 6, y + 4, name[:NAME], "end")
        for sample in bad[:: max(1, -(-len(bad) // CROSSES))]:
            x, kind = canvas.x(sample.started + shift[sample.run]), css_class(name)
            if sample.censored:
                canvas.add(
                    '<circle class="ring {}" cx="{}" cy="{}" r="3"><title>{}</title></circle>',
                    kind, x, y, f"{name}: cut off",
                )  # fmt: skip
            else:
                cross = f"M{round(x - 3, 1)} {round(y - 3, 1)}l6 6m0 -6l-6 6"
                canvas.add(
                    '<path class="cross {}" d="{}"><title>{}</title></path>',
                    kind, cross, f"{name}: {sample.error}",
                )  # fmt: skip


def weight_steps(points: Sequence[tuple[float, float]], end: float) -> Markup | None:
    """Percent of the traffic on the canary. points: (seconds since the epoch, percent), ascending."""
    if not points:
        return None
    begin = points[0][0]
    span = max(end - begin, points[-1][0] - begin, 1.0)
    told = ", ".join(f"{percent:g} %" for _, percent in points)
    unit, name = (60.0, "minutes") if span > 180 else (1.0, "seconds")
    canvas = Canvas("Weight of the canary over time", told, Linear(span / unit, count=5), Linear(100.0))
    canvas.axes(f"{name} since the first shift", say_number, lambda percent: f"{percent:.0f} %")
    path = [f"M{canvas.x(0)} {canvas.y(points[0][1])}"]
    path += [f"H{canvas.x((at - begin) / unit)}V{canvas.y(percent)}" for at, percent in points[1:]]
    path.append(f"H{canvas.x(span / unit)}")
    canvas.path("curve canary", "".join(path))
    return canvas.render()
