"""Distributions of a load test: how fast most were, how slow the slowest, and canary over baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from trainyard.bench.summary import quantile
from trainyard.report import curves
from trainyard.report.canvas import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TINY,
    TOP,
    WIDTH,
    Canvas,
    Linear,
    Log,
    Odds,
    css_class,
    say_share,
    say_time,
)

MOST_TIMES = 8.0  # slower or faster than the baseline fits on the plot
METRICS = ("ttft", "itl", "e2e")
BASELINE = "baseline"
DECADES = 1000.0  # from the slowest down: tokens of one packet have no time between them
Arms = Mapping[str, Sequence[float]]  # ascending seconds, an arm: `curves.sorted_values`


def ecdf(metric: str, arms: Arms, *, limit: float | None = None) -> Markup | None:
    """Share of requests (or token gaps) at least as fast, an arm a curve. limit: the SLO of p95, seconds."""
    if not arms:
        return None
    widest = max(quantile(numbers, 0.99) for numbers in arms.values()) * 1.1 or 0.001
    if limit is not None and widest / 3 < limit < widest * 1.6:
        widest = max(widest, limit * 1.08)  # worth showing, and the curves still fill the plot
    canvas = Canvas(f"Distribution of {metric}", _told(arms), Linear(widest, count=5), Linear(1.0))
    canvas.axes(f"{metric}: at most", say_time, say_share)
    if limit is not None and limit <= widest:
        _upright(canvas, limit, "SLO p95")
    for name, numbers in arms.items():
        path = [f"M{canvas.x(0)} {canvas.y(0)}"]
        for share, seconds in curves.distribution(numbers):
            if seconds > widest:
                break
            path.append(f"H{canvas.x(seconds)}V{canvas.y(share)}")
        canvas.path(f"curve {css_class(name)}", "".join(path))
    return canvas.render()


def tail(metric: str, arms: Arms, *, limit: float | None = None) -> Markup | None:
    """Share of requests (or token gaps) that were slower. Both axes are logarithmic: the slowest show."""
    if not arms:
        return None
    highest = max(numbers[-1] for numbers in arms.values())
    low = max(TINY, highest / DECADES, min(quantile(numbers, 0.1) for numbers in arms.values()))
    high = max(low * 2, highest)
    if limit is not None and high < limit < high * 3:
        high = limit
    most = max(len(numbers) for numbers in arms.values())
    canvas = Canvas(f"Slowest of {metric}", _told(arms), Log(low, high * 1.1), Log(min(0.1, 0.8 / most), 1.0))
    canvas.axes(f"{metric}: slower than", say_time, say_share)
    if limit is not None and low <= limit <= high:
        _upright(canvas, limit, "SLO p95")
    for name, numbers in arms.items():
        path = [f"M{LEFT} {canvas.y(1.0)}"]
        for share, seconds in curves.distribution(numbers):
            path.append(f"H{canvas.x(max(seconds, low))}V{canvas.y(1 - share)}")
        canvas.path(f"curve {css_class(name)}", "".join(path))
    return canvas.render()


def challenger(arms: Iterable[str]) -> str | None:
    """The arm that is held against the baseline; None if there is none, or no baseline."""
    names = list(arms)
    return next((name for name in names if name != BASELINE), None) if BASELINE in names else None


def over_baseline(metrics: Mapping[str, Arms], *, allowed: float | None = None) -> Markup | None:
    """The other arm's quantiles divided by the baseline's. allowed: the margin of the objectives."""
    found: dict[str, list[tuple[float, float]]] = {}
    for metric, arms in metrics.items():
        other = challenger(arms)
        points = curves.ratios(arms[other], arms[BASELINE]) if other is not None else []
        if points:
            found[metric] = points
    if not found:
        return None
    every = [ratio for points in found.values() for _, ratio in points]
    high = min(MOST_TIMES, max(1.2, *every, (allowed or 1.0) * 1.1))
    low = max(1 / MOST_TIMES, min(0.85, *every))
    ends = [share for points in found.values() for share, _ in (points[0], points[-1])]
    told = "; ".join(
        f"{metric}: {ratio_at(points, 0.5):.2f} x at the median, {ratio:.2f} x at {_place(share)}"
        for metric, points in found.items()
        for share, ratio in points[-1:]
    )
    canvas = Canvas(
        "Canary over baseline by percentile", told, Odds(min(ends), max(ends)), Log(low * 0.97, high * 1.03)
    )
    canvas.axes("percentile", _place, lambda ratio: f"{ratio:.3g} x")
    canvas.line(LEFT, canvas.y(1), WIDTH - RIGHT, canvas.y(1), "even")
    if allowed is not None and allowed <= high:
        y = canvas.y(allowed)
        canvas.line(LEFT, y, WIDTH - RIGHT, y, "limit")
        canvas.words(WIDTH - RIGHT, y - 4, "allowed", "end")
    for metric, points in found.items():
        path = "L".join(f"{canvas.x(share)} {canvas.y(ratio)}" for share, ratio in points)
        canvas.path(f"curve {metric}", f"M{path}")
    return canvas.render()


def ratio_at(points: Sequence[tuple[float, float]], share: float) -> float:
    return min(points, key=lambda point: abs(point[0] - share))[1]


def _upright(canvas: Canvas, at: float, text: str) -> None:
    x = canvas.x(at)
    canvas.line(x, TOP, x, HEIGHT - BOTTOM, "limit")
    canvas.words(x - 4, HEIGHT - BOTTOM - 6, text, "end")


def _told(arms: Mapping[str, Sequence[float]]) -> str:
    words = {"median": 0.5, "p95": 0.95, "p99": 0.99}
    return "; ".join(
        f"{name}: {', '.join(f'{word} {say_time(quantile(numbers, q))}' for word, q in words.items())}"
        for name, numbers in arms.items()
    )


def _place(share: float) -> str:
    return f"p{share * 100:.4g}"
